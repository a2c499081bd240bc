"""Short versions of the kills, terminations and distributed runs of `tests.reliability.run`."""

import glob
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.experiments.scripts import ENVIRONMENT, run_briefly
from tests.reliability import trials
from tests.reliability.fuzz import OUTCOMES, fuzz
from tests.reliability.jobs import Jobs
from tfkd import quantization


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    yield Jobs(str(tmp_path_factory.mktemp("jobs")), images=160)


@pytest.mark.end_to_end
def test_a_killed_run_ends_like_an_uninterrupted_one(jobs):
  assert trials.kills(jobs, 2)["lost"] == 0


@pytest.mark.end_to_end
def test_a_terminated_run_exits_with_0_and_resumes(jobs):
  assert trials.terminations(jobs, 1)["lost"] == 0


@pytest.mark.end_to_end
def test_a_second_process_on_a_workdir_is_refused(jobs):
  assert trials.second_process(jobs)["lost"] == 0


@pytest.mark.end_to_end
def test_two_workers_end_like_two_devices_even_if_one_is_killed(jobs):
  assert [row["lost"] for row in trials.workers(jobs, kills=[True])] == [0]


@pytest.mark.end_to_end
def test_a_parameter_server_ends_like_one_process_even_if_its_worker_is_killed(jobs):
  assert [row["lost"] for row in trials.servers(jobs, kills=[True])] == [0]


@pytest.mark.end_to_end
def test_differences_between_runs_are_found(jobs):
  workdir = jobs.new_workdir()
  shutil.copytree(jobs.reference, workdir)
  assert not jobs.differences(workdir)
  student = glob.glob(os.path.join(workdir, "students", "*.keras"))[0]
  model = quantization.load(student)
  model.set_weights([weights + 1e-3 * (i == 0) for i, weights in enumerate(model.get_weights())])
  quantization.save(model, student)
  assert jobs.differences(workdir) == [f"{os.path.basename(student)} by 0.001"]
  results = pathlib.Path(workdir, "results.jsonl")
  results.write_text(results.read_text().replace('"accuracy": 0.', '"accuracy": 1.'))
  assert jobs.differences(workdir)[0] == "results.jsonl"


def test_fuzz_counts_outcomes():
  counts = fuzz("results", 40)
  assert sum(counts.values()) == 40 and set(counts) <= set(OUTCOMES[:2]) and counts["read"]


def test_the_launcher_requires_a_module(tmp_path):
  command = [sys.executable, "-m", "tfkd.training.launch", "--workers=2"]
  result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
  assert result.returncode == 1 and "expected -- <module> <its flags>" in result.stdout + result.stderr


def test_multi_worker_requires_a_cluster(tmp_path):
  result = run_briefly("svhn.q1", tmp_path, "--strategy=multi_worker")
  assert result.returncode == 1 and "--strategy=multi_worker needs the environment variable TF_CONFIG" in result.stderr


def test_parameter_server_requires_a_cluster_with_all_its_jobs(tmp_path):
  result = run_briefly("svhn.q1", tmp_path, "--strategy=parameter_server")
  assert result.returncode == 1 and "--strategy=parameter_server needs the environment variable" in result.stderr
  cluster = '{"cluster": {"chief": ["127.0.0.1:1"]}, "task": {"type": "chief", "index": 0}}'
  result = run_briefly("svhn.q1", tmp_path, "--strategy=parameter_server", TF_CONFIG=cluster)
  assert result.returncode == 1 and "it has no worker and no ps" in result.stderr
