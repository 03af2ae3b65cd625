#!/usr/bin/env python3
"""The floor: what KVM itself and the host's memory cost, before any monitor. See kvm_floor.c, touch.c.

    floor.py [RUNS]
"""

import sys

import lib

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 30
WHOLE_STEPS = ("memslot", "total to first exit", "close")


def main() -> None:
    host = lib.host()
    lib.describe(host)
    kvm = lib.parse(lib.run(lib.TOOLS / "kvm_floor", str(RUNS)))
    touch = lib.parse(lib.run(lib.TOOLS / "touch", str(RUNS), "64"))

    ours = {k.split(": ", 1)[1]: v for k, v in kvm.items() if k.startswith("split; memory first: ")}
    lib.table("the calls of one machine, in mayfly's order", ours)
    for step in WHOLE_STEPS:
        lib.table(f"{step}, by order", {k.rpartition(": ")[0]: v for k, v in kvm.items()
                                        if k.endswith(": " + step)})
    lib.table("first touch of a 4 KiB page", touch)
    lib.save("floor", "CLOCK_MONOTONIC round each call", host, {"kvm": kvm, "touch": touch})


main()
