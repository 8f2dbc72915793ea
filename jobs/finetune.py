"""Fine-tune a model or train one from scratch: python jobs/finetune.py --config configs/demo/finetune_videomae.yaml"""

import argparse
import sys

from vidcls_batch.errors import VidclsError
from vidcls_batch.training.config import load_finetune_config
from vidcls_batch.training.finetune import finetune


def main() -> int:
    """Parse the command line, train, print the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file, see configs/demo/finetune_videomae.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the config")
    arguments = parser.parse_args()
    try:
        result = finetune(load_finetune_config(arguments.config, overrides=arguments.set))
    except VidclsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{result.checkpoint}: accuracy {result.accuracy:.3f} on {result.clips_evaluated} clips")
    return 0


if __name__ == "__main__":
    sys.exit(main())
