"""Runners: the programs of vendors that measure an exported network, and the shell script that calls one.

Their options and what they print were read in their sources (benchmark_app of OpenVINO 2026.4, performance_result.h of
ONNX Runtime's onnxruntime_perf_test, executor_runner.cpp of ExecuTorch); benchmark_app was run as well.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from nas.core.errors import InputError, nearest
from nas.latency.target import Target

SCRIPT = "measure.sh"
RESULTS = "results.csv"
LIST = "networks.txt"  # the digests to measure, one a line
EXECUTIONS = 100  # of executor_runner, which does not measure by time
_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class Runner(NamedTuple):
    """A vendor's program: its arguments for `$file` and `$seconds`, and the awk that prints milliseconds of its output.

    Which time it prints is its own: `statistic` says it, and the rows' notes carry it.
    """

    program: str
    suffix: str
    arguments: str
    awk: str
    statistic: str
    kinds: frozenset[str]
    precisions: tuple[str, ...]


RUNNERS = {
    # `-hint latency` and `-nthreads` exclude each other in benchmark_app; one stream of synchronous calls is the same
    "openvino": Runner(
        "benchmark_app",
        ".onnx",
        '-m "$file" -d {device} -hint none -api sync -infer_precision {precision} -t "$seconds"{threads}',
        'NF > 2 && $(NF-2) == "Median:" { print $(NF-1) * ($NF == "us" ? 0.001 : 1); exit }',
        "median",
        frozenset({"cpu", "gpu"}),
        ("fp32", "bf16", "fp16"),
    ),
    # -I makes the inputs, -s prints the percentiles, in seconds: `P50 Latency is 0.0587 sec` or `P50 Latency: 0.0587 s`
    "onnxruntime": Runner(
        "onnxruntime_perf_test",
        ".onnx",
        '-I -s -m duration -t "$seconds" -e {provider} -o 99{threads} "$file"',
        "/^P50 Latency/ { print $(NF-1) * 1000; exit }",
        "median",
        frozenset({"cpu", "gpu"}),
        ("fp32",),
    ),
    "executorch": Runner(
        "executor_runner",
        ".pte",
        f'--model_path="$file" --num_executions={EXECUTIONS}{{threads}}',
        '/Model executed successfully/ { for (i = 1; i < NF; i++) { if ($i == "successfully") n = $(i + 1); '
        'if ($i == "in") print $(i + 1) / n } }',
        "mean",
        frozenset({"cpu"}),
        ("fp32",),
    ),
}
_OPTIONS = {  # by runtime and kind
    ("openvino", "cpu"): {"device": "CPU", "threads": " -nstreams 1 -nthreads {count}"},
    ("openvino", "gpu"): {"device": "GPU", "threads": ""},
    ("onnxruntime", "cpu"): {"provider": "cpu", "threads": " -x {count} -y 1"},
    ("onnxruntime", "gpu"): {"provider": "cuda", "threads": ""},
    ("executorch", "cpu"): {"threads": " --cpu_threads={count}"},
}
_TEMPLATE = r"""#!/bin/sh
# Measures the networks of this folder with @PROGRAM@, @ROUNDS@ rounds of @SECONDS@ seconds, into @RESULTS@. Needs no
# Python: a POSIX shell, awk and the runner, which is looked for on the PATH or named by RUNNER=/where/it/is.
# Run it again to continue where it stopped.
set -u
LC_ALL=C
export LC_ALL
cd "$(dirname "$0")" || exit 2
program=@PROGRAM@
runner=${RUNNER:-$program}
seconds=@SECONDS@
command -v "$runner" >/dev/null 2>&1 || { echo "$runner is not here: install $program, or say RUNNER=" >&2; exit 127; }
limit=""
command -v timeout >/dev/null 2>&1 && limit="timeout @LIMIT@"
mkdir -p logs || exit 2
[ -s @RESULTS@ ] || echo "architecture,round,ms,note" > @RESULTS@ || exit 2
if [ -n "$(tail -c 1 @RESULTS@)" ]; then  # a line that was cut off
    sed '$d' @RESULTS@ > @RESULTS@.part && mv @RESULTS@.part @RESULTS@ || exit 2
fi

measure() {  # digest, round
    log="logs/$1.$2.txt"
    file="networks/$1@SUFFIX@"
    if $limit "$runner" @ARGUMENTS@ > "$log" 2>&1 < /dev/null; then
        ms=$(awk '@AWK@' "$log")
        if [ -n "$ms" ]; then
            echo "$1,$2,$ms,@PROGRAM@: @STATISTIC@" >> @RESULTS@
        else
            echo "$1,$2,,failed: no time in what the runner said" >> @RESULTS@
        fi
    else
        echo "$1,$2,,failed: the runner ended with code $?" >> @RESULTS@
    fi
}

round=1
while [ "$round" -le @ROUNDS@ ]; do
    number=0
    for digest in $(cat @LIST@); do
        number=$((number + 1))
        grep -q "^$digest,$round," @RESULTS@ && continue
        echo "round $round of @ROUNDS@, network $number of @COUNT@"
        measure "$digest" "$round"
    done
    round=$((round + 1))
done
"""


def runner_of(target: Target) -> Runner:
    """The runner of a target's runtime; InputError where there is none, or it cannot do what the target says."""
    runner = RUNNERS.get(target.runtime)
    if runner is None:
        near = nearest(target.runtime, RUNNERS)
        raise InputError("a runtime with a runner of its own is needed", value=target.runtime, nearest=near)
    if target.kind not in runner.kinds or target.precision not in runner.precisions:
        rule = f"{runner.program} runs on {' and '.join(sorted(runner.kinds))}, in {', '.join(runner.precisions)}"
        raise InputError(rule, value=str(target))
    return runner


def script(target: Target, seconds: int, rounds: int, count: int) -> str:
    """The shell script that measures a bundle of so many networks."""
    runner = runner_of(target)
    options = dict(_OPTIONS[target.runtime, target.kind])
    options["threads"] = options["threads"].format(count=target.threads)
    arguments = runner.arguments.format(**options, precision=_PRECISIONS[target.precision])
    values = {
        "ARGUMENTS": arguments,
        "AWK": runner.awk,
        "PROGRAM": runner.program,
        "SUFFIX": runner.suffix,
        "RESULTS": RESULTS,
        "LIST": LIST,
        "SECONDS": str(seconds),
        "ROUNDS": str(rounds),
        "COUNT": str(count),
        "LIMIT": str(10 * seconds + 300),
        "STATISTIC": runner.statistic,
    }
    return re.sub("@([A-Z]+)@", lambda match: values[match[1]], _TEMPLATE)
