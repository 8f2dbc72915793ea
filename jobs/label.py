"""Label a dataset: `ray job submit --working-dir . -- python jobs/label.py --config CONFIG [--set key=value ...]`."""

import sys

from vidcls_batch.cli import app


def main(arguments: list[str]) -> None:
    """`vidcls run` under the argument names of a submitted job."""
    positional = [a for a in arguments if a != "--config"]
    app(["run", *positional], prog_name="label.py")


if __name__ == "__main__":
    main(sys.argv[1:])
