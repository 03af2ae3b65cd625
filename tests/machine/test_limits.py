"""Rate limits: drives and entropy are held up and lose nothing; the console drops the rest."""

from __future__ import annotations

from mayfly import Monitor, Timeout, drive, guest, guest_verdict, make_disk

SECTORS = 64
PASS = 6  # requests in which the guest reads such a drive once
HOUR = 3600 * 1000
OFF = {"size": 0, "refill_time": 0}


def machine(args: str, limiter: dict, name: str = "blk") -> Monitor:
    m = Monitor()
    if name == "blk":
        path = make_disk(m.dir / "disk.img", SECTORS * 512)
        drives = [drive(path, "d", io_engine="Async", rate_limiter=limiter)]
        m.configure(guest(name), args, drives=drives)
    else:
        m.configure(guest(name), args)
        m.api.must("PUT", "/entropy", {"rate_limiter": limiter})
    m.start()
    return m


def stands_still(m: Monitor, word: str) -> None:
    """A pass takes a guest a fraction of this."""
    try:
        m.wait_for_console(word, 1.0)
    except Timeout:
        return
    raise AssertionError(f"more passed than the bucket had: {word}")


def patch(m: Monitor, **limiter: dict) -> None:
    m.api.must("PATCH", "/drives/d", {"drive_id": "d", "rate_limiter": limiter})


def test_an_empty_bucket_holds_a_drive_up_until_it_is_lifted():
    buckets = (("ops", PASS), ("bandwidth", SECTORS * 512))
    for kind, of_one_pass in buckets:
        limit = {"size": 2 * of_one_pass, "refill_time": 2 * HOUR}
        with machine("do=again seed=1", {kind: limit}) as m:
            m.wait_for_console("pass 1")
            for _ in range(3):
                m.pause()
                m.resume()  # which kicks every queue: it stays held up
            stands_still(m, "pass 2")
            patch(m, **{kind: {"size": of_one_pass, "refill_time": HOUR}})
            m.wait_for_console("pass 2")
            m.pause()
            m.resume()
            stands_still(m, "pass 3")
            patch(m, **{kind: OFF})
            m.wait_for_console("pass 9")


def test_the_burst_passes_once():
    limit = {"size": PASS, "one_time_burst": 2 * PASS, "refill_time": HOUR}
    with machine("do=again seed=1", {"ops": limit}) as m:
        m.wait_for_console("pass 2")
        m.pause()
        m.resume()
        patch(m, bandwidth=OFF)  # of the other bucket: nothing changes
        stands_still(m, "pass 3")


def test_a_throttled_drive_answers_every_request_by_itself():
    for limiter in (
        {"ops": {"size": 3, "refill_time": 10}},
        {"bandwidth": {"size": 1000, "refill_time": 5}},  # a sector is half of it
        {"bandwidth": {"size": 100, "refill_time": 1}},  # and here more than all of it
        {"ops": {"size": 7, "refill_time": 20}, "bandwidth": {"size": 4096, "refill_time": 20}},
    ):
        with machine("do=depth n=200 seed=1", limiter) as m:
            for _ in range(5):
                m.pause()
                m.resume()
            guest_verdict(m)
            assert m.wait_exit() == 0


def test_throttled_entropy_answers_every_request_by_itself():
    with machine("do=many n=100", {"ops": {"size": 4, "refill_time": 20}}, "rng") as m:
        guest_verdict(m)
        assert m.wait_exit() == 0


def test_the_console_drops_what_is_too_much_and_holds_nobody_up():
    whole = ""
    for limiter in (None, {"size": 40, "refill_time": HOUR}):
        with Monitor() as m:
            drives = [drive(make_disk(m.dir / "disk.img", SECTORS * 512), "d")]
            m.configure(guest("blk"), "do=order n=1", drives=drives)
            m.api.must("PUT", "/serial", {"rate_limiter": limiter})
            m.start()
            assert m.wait_exit() == 0
            output = m.output()
        assert len(output) > 40 if limiter is None else output == whole[:40], output
        whole = output
