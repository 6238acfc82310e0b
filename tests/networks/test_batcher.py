"""The queues that tracks and sources share."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from streamgate.networks import Batcher
from streamgate.networks.batcher import InferenceRequest
from streamgate.networks.pose import head_poses


def doubles(arrays):
    return [2 * array for array in arrays]


def test_every_submitter_gets_its_own_result():
    with Batcher({"pose": doubles}, max_batch=4, limit=8) as batcher:

        def many(start):
            futures = [batcher.submit("pose", np.array([start + i])) for i in range(50)]
            return [int(future.result(5)[0]) for future in futures]

        with ThreadPoolExecutor(4) as pool:
            for start, results in zip(range(0, 400, 100), pool.map(many, range(0, 400, 100)), strict=True):
                assert results == [2 * (start + i) for i in range(50)]


def test_batches_and_queues_stay_bounded():
    gate, sizes = threading.Event(), []

    def slow(arrays):
        gate.wait(5)
        sizes.append(len(arrays))
        return arrays

    with Batcher({"pose": slow}, max_batch=3, limit=4) as batcher:
        done = threading.Event()

        def submit_all():
            for _ in range(12):
                batcher.submit("pose", np.zeros(1))
            done.set()

        thread = threading.Thread(target=submit_all)
        thread.start()
        assert not done.wait(0.2), "submit did not wait for the full queue"
        gate.set()
        thread.join(5)
        assert done.is_set()
    assert sum(sizes) == 12 and max(sizes) <= 3


def test_an_exception_reaches_those_who_wait_and_the_next_run_works():
    def picky(arrays):
        if any(array[0] < 0 for array in arrays):
            raise ValueError("negative")
        return arrays

    with Batcher({"pose": picky}, max_batch=1) as batcher:
        bad, good = batcher.submit("pose", np.array([-1])), batcher.submit("pose", np.array([1]))
        with pytest.raises(ValueError, match="negative"):
            bad.result(5)
        assert good.result(5)[0] == 1


def test_closing_finishes_what_is_queued_and_refuses_more():
    batcher = Batcher({"pose": doubles}, max_batch=2)
    futures = [batcher.submit("pose", np.array([i])) for i in range(20)]
    batcher.close()
    batcher.close()
    assert [int(future.result(0)[0]) for future in futures] == [2 * i for i in range(20)]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit("pose", np.array([0]))


def test_a_cancelled_item_is_not_run():
    gate, ran = threading.Event(), []

    def slow(arrays):
        gate.wait(5)
        ran.extend(int(array[0]) for array in arrays)
        return arrays

    with Batcher({"pose": slow}, max_batch=1) as batcher:
        first, second = batcher.submit("pose", np.array([1])), batcher.submit("pose", np.array([2]))
        assert second.cancel()
        gate.set()
        first.result(5)
    assert ran == [1]


def test_results_equal_direct_runs_bit_for_bit(networks, hq_faces):
    crops = [np.ascontiguousarray(face[72:184, 72:184]) for face in hq_faces[:12]]
    direct = networks.recognizer.run(np.stack(crops))
    poses = head_poses(networks.pose, np.stack([crop[:64, :64] for crop in crops]))
    found = networks.detector.detect(hq_faces[:4])
    with Batcher.over(networks, workers=2) as batcher:
        identities = [batcher.submit("recognizer", crop) for crop in crops]
        angles = [batcher.submit("pose", np.ascontiguousarray(crop[:64, :64])) for crop in crops]
        faces = [batcher.submit("detector", picture) for picture in hq_faces[:4]]
        for index, (identity, angle) in enumerate(zip(identities, angles, strict=True)):
            assert np.array_equal(identity.result(30).embedding, direct.embedding[index])
            assert identity.result().spread == direct.spread[index]
            assert np.array_equal(angle.result(30), poses[index])
        for one, other in zip(faces, found, strict=True):
            assert [face.score for face in one.result(30)] == [face.score for face in other]
        if networks.ifqa is None:
            with pytest.raises(KeyError):
                batcher.submit("ifqa", crops[0])


def test_a_party_that_asks_for_much_makes_no_other_wait_for_it() -> None:
    started, release, order = threading.Event(), threading.Event(), []

    def run(pictures):
        started.set()
        release.wait(30)
        order.extend(int(picture[0]) for picture in pictures)
        return [0] * len(pictures)

    with Batcher({"pose": run}, max_batch=1) as batcher:
        futures = [batcher.submit("pose", np.array([0]), "crowd")]
        assert started.wait(30)
        futures += [batcher.submit("pose", np.array([1]), "crowd") for _ in range(20)]
        futures += [batcher.submit("pose", np.array([2]), "alone") for _ in range(3)]
        release.set()
        for future in futures:
            future.result(30)
    assert order[:7] == [0, 1, 2, 1, 2, 1, 2]


def test_on_the_cpu_who_asks_runs_what_no_worker_has_begun() -> None:
    threads = []

    def run(pictures):
        threads.append(threading.get_ident())
        return [2 * picture for picture in pictures]

    me = threading.get_ident()
    with Batcher({"pose": run}, max_batch=1) as batcher:
        (result,) = batcher.infer([InferenceRequest("pose", np.array([4]))])
        assert int(result[0]) == 8 and threads == [me]
        many = batcher.infer([InferenceRequest("pose", np.array([index])) for index in range(20)])
        assert [int(result[0]) for result in many] == [2 * index for index in range(20)]
        assert batcher.infer([]) == []
    assert len(threads) == 21, "each is run once, by a worker or by who asks"
    with pytest.raises(RuntimeError, match="closed"):
        batcher.infer([InferenceRequest("pose", np.array([1]))])


def test_no_more_runs_of_a_role_at_once_than_workers_whoever_runs_them() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def run(pictures):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return list(pictures)

    with Batcher({"pose": run}, max_batch=1, workers=2) as batcher, ThreadPoolExecutor(8) as pool:
        asked = [InferenceRequest("pose", np.array([index])) for index in range(4)]
        for answers in pool.map(lambda _: batcher.infer(asked), range(8)):
            assert [int(answer[0]) for answer in answers] == [0, 1, 2, 3]
    assert most <= 2
