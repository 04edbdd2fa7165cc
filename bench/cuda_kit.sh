#!/usr/bin/env bash
# Measure the CUDA table on a machine with a GPU, Python, PyTorch and onnxruntime, but without a package index.
# `phi3v bench cuda-kit` packed this together with all that such a machine lacks.
#
#     run RESULTS [MINUTES [OPTION of phi3v bench cuda-table]...]
#
# While the models are built, the tests for a real GPU run. Then the table is measured, until MINUTES after the start
# (9). RESULTS gets record.json, report.md, report.html, run.log and tests.log. $PYTHON is the Python to use (python3).
# The models take 20 GB in $TMPDIR (/tmp) and are removed. Status 1: something failed, and the last line says what.
set -euo pipefail

if (($# < 1)); then
    sed -n '2,/^set/ s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
mkdir -p "$1"
results=$(cd "$1" && pwd)
minutes=${2:-9}
shift $(($# < 2 ? 1 : 2))
kit=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
tests_s=150
spare_s=100 # of MINUTES: models are hashed before the first answer, and kernels are profiled after the last

exec > >(tee "$results/run.log") 2>&1
log=$!
work=$(mktemp -d)
export TMPDIR=$work
build=
clean_up() {
    if [[ -n $build ]]; then kill "$build" 2>/dev/null && wait "$build" || true; fi
    rm -rf "$work"
    exec >&- 2>&-
    wait "$log" || true
}
trap clean_up EXIT

fail() {
    echo "run: $*"
    exit 1
}
left_s() { echo $((60 * minutes - SECONDS)); }

[[ $minutes =~ ^[1-9][0-9]*$ ]] || fail "MINUTES is '$minutes'; give a whole number, such as 9"
[[ -f $kit/onnxruntime.tar.xz ]] || fail "$kit lacks onnxruntime.tar.xz; copy the whole folder"
command -v "$python" >/dev/null || fail "there is no $python; set \$PYTHON"

# Not by tar: it needs xz, which small images lack.
unpack='
import sys, tarfile
for archive in sys.argv[2:]:
    with tarfile.open(archive) as opened:
        opened.extractall(sys.argv[1])
'
"$python" -W ignore -c "$unpack" "$work" "$kit"/*.tar.xz || fail "an archive is damaged; copy the whole folder again"

site=$work/site
tag=$("$python" -c 'import sys; print("cpython-%d%d" % sys.version_info[:2])')
if ! compgen -G "$site/onnxruntime_genai/*.$tag-*.so" >/dev/null; then
    made=$(cd "$site/onnxruntime_genai" && echo *.cpython-*.so)
    fail "$python is $tag, and the kit holds $made; set \$PYTHON, or pack with --python"
fi
if gpu=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .) && [[ -n $gpu ]]; then
    arch=$(<"$work/arch")
    [[ ${gpu%?} == "${arch%?}" ]] && ((gpu >= arch)) ||
        fail "the GPU is of sm_$gpu, and the kit holds code for sm_$arch; pack with --arch $gpu"
fi

# What an export needs of onnxruntime beside the kit; another version's will do.
own=$("$python" -P -c 'import os, onnxruntime; print(os.path.dirname(onnxruntime.__file__))') ||
    fail "$python has no onnxruntime; the models are built with its onnxruntime.quantization"
for folder in quantization transformers tools; do
    [[ -e $site/onnxruntime/$folder ]] || cp -r "$own/$folder" "$site/onnxruntime/"
done

tree=$work
if [[ ! -d $work/tests ]]; then
    tree=$PWD
    [[ -f runtime/__init__.py ]] || fail "the kit was packed without the tree; start run in a clone of the repository"
    mkdir -p "$site/phi3v"
    for part in runtime/* export cli bench; do
        [[ -e $site/phi3v/$(basename "$part") ]] || ln -s "$tree/$part" "$site/phi3v/"
    done
fi
cd "$tree"
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

echo "== doctor (a second onnxruntime on the machine does no harm here)"
"$python" -P -m phi3v doctor || true

timeout "$(left_s)" "$python" -P -m phi3v bench cuda-table "$work/out" --step build --models "$work/models" "$@" \
    >"$work/build.log" 2>&1 &
build=$!

echo "== tests"
passed=true
only=()
[[ -d $site/phi3v/builtin ]] || only=(-k "not nano")
# Warnings are no errors here: the versions are other ones than CI's.
timeout --foreground "$tests_s" "$python" -P -m pytest -q -o filterwarnings=default -p no:cacheprovider "${only[@]}" \
    tests/gpu/test_on_a_real_gpu.py >"$results/tests.log" 2>&1 || passed=false
tail -25 "$results/tests.log" | cut -c1-300

echo "== build"
built=true
wait "$build" || built=false
build=
cat "$work/build.log"
$built || fail "the models could not be built, or not in $minutes minutes"

echo "== measure"
measure_s=$(($(left_s) - spare_s))
((measure_s > 0)) || fail "no time is left to measure; give more MINUTES than $minutes"
timeout --foreground "$(left_s)" "$python" -P -m phi3v bench cuda-table "$results" --step measure \
    --models "$work/models" --minutes "$((measure_s / 60)).$(printf %02d $((measure_s % 60 * 100 / 60)))" "$@" ||
    fail "measuring ended early; record.json holds what was measured"
$passed || fail "not all tests passed: see tests.log"
