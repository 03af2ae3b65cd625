"""The balloon, through the API and with a small driver of our own."""

from __future__ import annotations

import re
import time
from typing import Any

from mayfly import SCALE, Monitor, guest, guest_verdict


def rss_mib(m: Monitor) -> float:
    return m.rss_kib() / 1024


def machine(do: str, **balloon: Any) -> Monitor:
    m = Monitor(stdin="pipe")
    m.api.must("PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": False, **balloon})
    m.configure(guest("balloon"), f"do={do}", mem_mib=128)
    m.start()
    return m


def test_memory_leaves_and_comes_back():
    with machine("inflate mib=24", amount_mib=24) as m:
        m.wait_for_console("touched")
        touched = rss_mib(m)
        m.type(b"x")
        m.wait_for_console("given")
        given = rss_mib(m)
        m.type(b"x")
        m.wait_for_console("back")
        back = rss_mib(m)
        m.type(b"x")
        guest_verdict(m)
        assert touched - given > 23, f"{touched} MiB resident, then {given}"
        assert abs(back - touched) < 2, f"{touched} MiB resident at first, {back} in the end"
        assert m.wait_exit() == 0


def test_reported_pages_leave():
    with machine("report mib=16", free_page_reporting=True) as m:
        m.wait_for_console("touched")
        touched = rss_mib(m)
        m.type(b"x")
        m.wait_for_console("reported")
        assert touched - rss_mib(m) > 15
        m.type(b"x")
        guest_verdict(m)


def test_a_new_target_reaches_the_guest():
    with machine("target", amount_mib=3, stats_polling_interval_s=600) as m:
        m.wait_for_console("target 768")
        m.api.must("PATCH", "/balloon", {"amount_mib": 64})
        m.wait_for_console("target 16384")
        assert m.api.get("/balloon").json["amount_mib"] == 64
        assert m.api.get("/vm/config").json["balloon"]["amount_mib"] == 64
        end = time.monotonic() + 30 * SCALE
        while m.api.get("/balloon/statistics").json["actual_mib"] != 64:
            assert time.monotonic() < end, "the guest's word does not arrive"
        m.pause()
        m.api.must("PATCH", "/balloon", {"amount_mib": 1})
        m.resume()
        m.wait_for_console("target 256\\D")


def test_statistics_follow_the_guest():
    with machine("stats", stats_polling_interval_s=1) as m:
        m.wait_for_console("asked 2\\D")
        stats = m.api.get("/balloon/statistics").json
        assert stats["free_memory"] >= 2000 and stats["total_memory"] >= 2, stats
        assert "swap_in" not in stats, "a number the guest never told"
        m.api.must("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 2})
        m.api.must("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 2})
        m.wait_for_console("asked 4\\D")
        answer = m.api.patch("/balloon/statistics", {"stats_polling_interval_s": 0})
        assert "Statistics cannot be enabled/disabled after activation." in answer.fault, answer


def test_a_guest_that_lies_breaks_its_own_balloon():
    with machine("hostile") as m:
        guest_verdict(m)
        assert m.wait_exit() == 0


def test_hinting_is_told_to_the_guest():
    with machine("target", free_page_hinting=True) as m:
        m.wait_for_console("target 0\\D")
        m.api.must("PATCH", "/balloon/hinting/start")
        assert m.api.get("/balloon/hinting/status").json == {"host_cmd": 2, "guest_cmd": None}
        m.api.must("PATCH", "/balloon/hinting/stop", {})
        assert m.api.get("/balloon/hinting/status").json["host_cmd"] == 1
        m.api.must("PATCH", "/balloon/hinting/start", {"acknowledge_on_stop": False})
        assert m.api.get("/balloon/hinting/status").json["host_cmd"] == 3, "a run that Linux knows"


def test_what_is_wrong_before_the_start_is_said_and_changes_nothing():
    good = {"amount_mib": 16, "deflate_on_oom": True, "stats_polling_interval_s": 3}
    rows = [
        ("PUT", "/balloon", {"amount_mib": 129, "deflate_on_oom": True}, "too large"),
        ("PUT", "/balloon", {"amount_mib": -1, "deflate_on_oom": True}, "u32"),
        ("PUT", "/balloon", {"amount_mib": 1 << 32, "deflate_on_oom": True}, "u32"),
        ("PUT", "/balloon", {"amount_mib": 1}, "missing field `deflate_on_oom`"),
        ("PUT", "/balloon", {**good, "stats_polling_interval_s": 65536}, "u16"),
        ("PUT", "/balloon", {**good, "speed": 1}, "unknown field `speed`"),
        ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 15}, "balloon device target"),
        ("PATCH", "/balloon", {"amount_mib": 1}, "before starting"),
        ("GET", "/balloon/statistics", None, "before starting"),
        ("PATCH", "/balloon/hinting/start", None, "before starting"),
    ]
    with Monitor() as m:
        assert "No balloon device found" in m.api.get("/balloon").fault
        m.api.must("PUT", "/balloon", good)
        before = m.api.get("/vm/config").body
        for method, path, body, word in rows:
            answer = m.api.request(method, path, body)
            assert answer.status == 400 and word in answer.fault, (method, path, body, answer)
            assert m.api.get("/vm/config").body == before, f"{method} {path} changed something"
        m.api.must("PUT", "/balloon", {"amount_mib": 8, "deflate_on_oom": False})
        shown = m.api.get("/balloon").json
        assert shown == {
            "amount_mib": 8, "deflate_on_oom": False, "stats_polling_interval_s": 0,
            "free_page_hinting": False, "free_page_reporting": False,
        }


def test_what_is_wrong_after_the_start_is_said_and_changes_nothing():
    rows = [
        ("PUT", "/balloon", {"amount_mib": 1, "deflate_on_oom": True}, "after starting"),
        ("PATCH", "/balloon", {"amount_mib": 129}, "Requested memory should be less than 128MiB"),
        ("GET", "/balloon/statistics", None, "statistics are disabled".replace("istics", "s")),
        ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1}, "cannot be enabled"),
        ("PATCH", "/balloon/hinting/start", {}, "hinting when not enabled"),
        ("GET", "/balloon/hinting/status", None, "hinting when not enabled"),
    ]
    with machine("target", amount_mib=3) as m:
        m.wait_for_console("target 768")
        before = m.api.get("/vm/config").body
        for method, path, body, word in rows:
            answer = m.api.request(method, path, body)
            assert answer.status == 400 and word in answer.fault, (method, path, body, answer)
            assert m.api.get("/vm/config").body == before, f"{method} {path} changed something"
    with Monitor() as m:
        m.configure(guest("console"), "do=echo")
        m.start()
        for method, path, body in (("GET", "/balloon", None), ("PATCH", "/balloon", {"amount_mib": 1})):
            answer = m.api.request(method, path, body)
            assert re.search("Device not found", answer.fault), answer
