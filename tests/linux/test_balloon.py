"""Linux's balloon driver on our device: memory goes and comes, and an overload is survived."""

from __future__ import annotations

import time

from linuxguest import BOOT_TIMEOUT, DEBIAN, PVH, Flavour, script_word, start_linux
from mayfly import SCALE, Api, Monitor
from teleport import moves_before_it_is_up

MEM = 256


def wait_for(what: str, condition, seconds: float = 60.0) -> None:
    """Looks again and again: neither the guest's balloon nor its pages tell when they are done."""
    end = time.monotonic() + seconds * SCALE
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.1)


def stats(api: Api) -> dict:
    return api.must("GET", "/balloon/statistics", status=200).json


def rss(m: Monitor) -> float:
    return m.rss_kib() / 1024


def there_and_back(flavour: Flavour) -> None:
    script = """load hog 150 true >/dev/null; echo touched=yes
    read line; load hog 100 true | tail -n 1; echo 3 >/proc/sys/vm/drop_caches; echo again=yes; read line"""
    balloon = {"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 1}
    with start_linux(flavour, script_word(script), mem_mib=MEM, config={"balloon": balloon}, api=True,
                     stdin="pipe") as m:
        m.wait_for_console("touched=yes", BOOT_TIMEOUT)
        api = Api(m.socket)
        before = rss(m)
        target = MEM * 3 // 4 if flavour is PVH else MEM // 2
        api.must("PATCH", "/balloon", {"amount_mib": target})
        wait_for("the balloon", lambda: stats(api)["actual_mib"] >= target - 8)
        wait_for("the memory", lambda: rss(m) < before - 110)
        # Not those of a moment before the balloon had grown.
        wait_for("statistics that tell of it", lambda: stats(api)["free_memory"] < (MEM - target) << 20)
        free = stats(api)["free_memory"]
        api.must("PATCH", "/balloon", {"amount_mib": 0})
        wait_for("the balloon", lambda: stats(api)["actual_mib"] == 0)
        wait_for("statistics that change", lambda: stats(api)["free_memory"] > free + (64 << 20))
        m.type(b"\n")
        m.wait_for_console("kept=yes", BOOT_TIMEOUT)
        m.wait_for_console("again=yes", BOOT_TIMEOUT)
        assert rss(m) > before - 60, "the memory did not come back"
        m.type(b"\n")
        assert m.wait_exit(60) == 0
        for word in ("BUG", "Oops", "lockup"):
            assert word not in m.output(), m.output()


# What is measured is the memory of the process.
@moves_before_it_is_up
def test_there_and_back_tuned():
    there_and_back(PVH)


@moves_before_it_is_up
def test_there_and_back_debian():
    there_and_back(DEBIAN)


@moves_before_it_is_up
def test_a_hog_is_saved_by_deflate_on_oom_and_freed_pages_are_reported():
    script = """echo up=yes; read line
    load hog 150 true | tail -n 1; echo done=yes; read line"""
    balloon = {"amount_mib": 0, "deflate_on_oom": True, "free_page_reporting": True,
               "free_page_hinting": True, "stats_polling_interval_s": 1}
    with start_linux(PVH, script_word(script), mem_mib=MEM, config={"balloon": balloon}, api=True,
                     stdin="pipe") as m:
        m.wait_for_console("up=yes", BOOT_TIMEOUT)
        api = Api(m.socket)
        api.must("PATCH", "/balloon", {"amount_mib": 160})
        wait_for("the balloon", lambda: stats(api)["actual_mib"] >= 150)
        m.type(b"\n")
        m.wait_for_console("kept=yes", BOOT_TIMEOUT)
        m.wait_for_console("done=yes", BOOT_TIMEOUT)
        high = rss(m)
        # The hog is gone: its pages are reported, a few seconds later, and leave.
        wait_for(f"freed pages ({high:.0f} MiB)", lambda: rss(m) < 110)
        # Twice: Linux begins no run whose number it knows, and there is no end of it then.
        for _ in range(2):
            api.must("PATCH", "/balloon/hinting/start")
            wait_for("the end of a hinting run",
                     lambda: api.get("/balloon/hinting/status").json["host_cmd"] == 1)
        m.type(b"\n")
        assert m.wait_exit(60) == 0
        assert "Out of memory" not in m.output()
