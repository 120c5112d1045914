"""Which processes train together, what they have to agree in, and what each is told when they do not."""

import json
import socket
import threading
import time

import pytest

from hetmorph.training import hosts

PAIR = ("a:1", "b:2")
SLURM = {"SLURM_STEP_NODELIST": "n[09-10,12],m", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1,1", "SLURM_JOB_ID": "30007"}


def tf_config(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def addresses(count):
    """Of this host, with ports that nobody has at the moment."""
    taken = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return tuple(f"localhost:{port}" for port in ports)


def meeting(clusters, plans, seconds=20.0, late=()):
    """What each of several workers gets of a meeting: None, or its error. Some come late."""
    results = [None] * len(clusters)

    def attend(number):
        try:
            hosts.meet(clusters[number], plans[number], seconds)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=attend, args=(number,)) for number in range(len(clusters))]
    for number in sorted(range(len(threads)), key=lambda number: number in late):
        if number in late:
            time.sleep(0.5)
        threads[number].start()
    for thread in threads:
        thread.join()
    return results


def together(count=2):
    workers = addresses(count)
    return [hosts.Cluster(workers, index) for index in range(count)]


@pytest.mark.parametrize(
    "cluster,kind,index,expected",
    [
        ({"worker": PAIR}, "worker", 1, 1),
        ({"chief": ["a:1"], "worker": ["b:2"]}, "chief", 0, 0),
        ({"chief": ["a:1"], "worker": ["b:2"]}, "worker", 0, 1),
    ],
)
def test_tf_config_as_tensorflow_documents_it(cluster, kind, index, expected):
    assert hosts.from_tf_config(tf_config(cluster, kind, index)) == hosts.Cluster(PAIR, expected)


@pytest.mark.parametrize("environ", [{}, {"TF_CONFIG": ""}, tf_config({"worker": ["a:1"]})])
def test_a_process_alone(environ):
    assert hosts.from_tf_config(environ) is None


@pytest.mark.parametrize(
    "environ,message",
    [
        ({"TF_CONFIG": "{worker"}, 'expected {"cluster"'),
        ({"TF_CONFIG": "[]"}, 'expected {"cluster"'),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:2"]}}'}, 'expected {"cluster"'),
        (tf_config({"worker": ["a", "b:2"]}), 'expected {"cluster"'),
        (tf_config({"worker": PAIR}, index="first"), 'expected {"cluster"'),
        (tf_config({"worker": PAIR}, index=2), "an index of the 2 workers, from 0 on, received 2"),
        (tf_config({"worker": PAIR, "ps": ["c:3"]}), "expected workers that all train, received tasks of the kind ps"),
        (tf_config({"worker": ["a:1", "a:1"]}), "a different host:port for each worker"),
    ],
)
def test_a_broken_tf_config_is_one_clear_error(environ, message):
    with pytest.raises(ValueError, match="TF_CONFIG: ") as caught:
        hosts.from_tf_config(environ)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("rank", range(6))
def test_the_tasks_of_slurm_in_the_order_of_their_ranks(rank):
    """TensorFlow's own resolver sorts the names of nodes as text, which gives other ranks from ten nodes on."""
    cluster = hosts.from_slurm({**SLURM, "SLURM_PROCID": str(rank)})
    of_job = ("n09:20007", "n09:20008", "n10:20007", "n10:20008", "n12:20007", "m:20007")
    assert cluster == hosts.Cluster(of_job, rank)
    assert (cluster.local_index, cluster.on_this_host) == [(0, 2), (1, 2), (0, 2), (1, 2), (0, 1), (0, 1)][rank]


def test_one_task_of_slurm_is_alone():
    environ = {**SLURM, "SLURM_STEP_NODELIST": "n1", "SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_PROCID": "0"}
    assert hosts.from_slurm(environ) is None


@pytest.mark.parametrize(
    "changed,message",
    [
        ({"SLURM_PROCID": None}, "expected a process that srun started, but SLURM_PROCID is not set"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, "as many nodes as counts of tasks"),
        ({"SLURM_STEP_TASKS_PER_NODE": "two"}, "expected SLURM_STEP_TASKS_PER_NODE such as 2(x3),1, received 'two'"),
        ({"SLURM_PROCID": "6"}, "a rank of the 6 tasks, received SLURM_PROCID=6"),
    ],
)
def test_variables_of_slurm_that_make_no_cluster(changed, message):
    environ = {name: value for name, value in {**SLURM, "SLURM_PROCID": "0", **changed}.items() if value is not None}
    with pytest.raises(ValueError) as caught:
        hosts.from_slurm(environ)
    assert message in str(caught.value)


def test_workers_of_one_plan_meet_and_leave_their_ports():
    clusters = together(3)
    assert meeting(clusters, [{"steps": 5, "size": [32, 32]}] * 3) == [None] * 3
    for cluster in clusters:
        socket.create_server(("", int(cluster.workers[cluster.index].rpartition(":")[2]))).close()


def test_workers_of_different_plans_are_all_told_why():
    errors = meeting(together(3), [{"steps": 5}, {"steps": 5}, {"steps": 6}], late=(1,))
    assert {type(error) for error in errors} == {ValueError}
    assert {str(error) for error in errors} == {
        "expected the same in all workers, but steps is 5 in worker 0 and 6 in worker 2"
    }


def test_an_unequal_cluster_is_found():
    first, second, third = addresses(3)
    errors = meeting([hosts.Cluster((first, second), 0), hosts.Cluster((first, third), 1)], [{}, {}])
    assert all(isinstance(error, ValueError) and "the same cluster in all workers" in str(error) for error in errors)


def test_two_workers_of_one_index_are_found():
    workers = addresses(3)
    errors = meeting([hosts.Cluster(workers, index) for index in (0, 1, 1)], [{}, {}, {}], seconds=5.0, late=(2,))
    # The second of them comes when the first one's port is free again: worker 0 hears, and tells, both.
    assert sum("worker 1" in str(error) for error in errors) == 3


@pytest.mark.parametrize("present,absent", [((0, 1), 2), ((1,), 0)])
def test_a_worker_that_never_comes_is_named(present, absent):
    clusters = together(3)
    errors = meeting([clusters[index] for index in present], [{}] * len(present), seconds=0.5)
    for error in errors:
        assert isinstance(error, ConnectionError)
        assert f"worker {absent} ({clusters[0].workers[absent]})" in str(error) and "within 0.5 s" in str(error)


def test_a_port_that_is_taken():
    clusters = together(2)
    with socket.create_server(("", int(clusters[1].workers[1].rpartition(":")[2]))):
        (error,) = meeting(clusters[1:], [{}], seconds=0.5)
    assert isinstance(error, ConnectionError) and "worker 1" in str(error) and "cannot listen on port" in str(error)


def test_who_is_no_worker_is_not_heard():
    clusters = together(2)
    address = ("localhost", int(clusters[0].workers[0].rpartition(":")[2]))
    result = []
    chief = threading.Thread(target=lambda: result.append(meeting(clusters[:1], [{}])))
    chief.start()
    for words in (b"GET / HTTP/1.1\r\n", b'{"index": 1}\n', b""):
        while True:
            try:
                with socket.create_connection(address) as line:
                    line.sendall(words)
                    line.shutdown(socket.SHUT_WR)
                    assert line.recv(1) == b""
                break
            except ConnectionRefusedError:
                continue
    assert meeting(clusters[1:], [{}]) == [None]
    chief.join()
    assert result == [[None]]
