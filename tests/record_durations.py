"""Writes tests/durations.json, by which long tests start first.

python tests/record_durations.py results/ci/test.xml results/ci/slow.xml
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

SHORTEST = 1.0


def main(files: list[str]) -> None:
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            function = case.attrib["name"].split("[")[0].split("@")[0]
            seconds[f"{case.attrib['classname'].replace('.', '/')}.py::{function}"].append(float(case.attrib["time"]))
    means = {name: round(sum(found) / len(found), 1) for name, found in seconds.items()}
    long = {name: mean for name, mean in sorted(means.items()) if mean >= SHORTEST}
    Path(__file__).with_name("durations.json").write_text(json.dumps(long, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
