"""The demo behind `make demo`: `python jobs/demo.py --out demo_out`."""

import argparse
from pathlib import Path

from vidcls_batch.demo import NUM_CLIPS, run_demo


def main() -> None:
    """Read the arguments and run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder for clips and run")
    parser.add_argument("--num-clips", type=int, default=NUM_CLIPS)
    arguments = parser.parse_args()
    run_demo(arguments.out, num_clips=arguments.num_clips)


if __name__ == "__main__":
    main()
