#!/usr/bin/env bash
# Sets up .venv from requirements.lock and runs the whole sentence: data -> folds -> train -> predict -> score -> ensembles -> report.
#   ./run_all.sh                                    the demo
#   ./run_all.sh test [--all|--lowest]              the test suite [with the slow tests; with the oldest packages that setup.py allows]
#   ./run_all.sh --data DATA --recipe NAME [...]    your photographs
set -euo pipefail

usage() {
    cat <<'END'
usage: ./run_all.sh                          the demo: data -> folds -> train -> predict -> score -> report
       ./run_all.sh test [--all|--lowest]    the fast tests [all tests; with the oldest packages that setup.py allows]
       ./run_all.sh --data DATA --recipe NAME|FILE [--protocol whale|encounter|stratified|time|identify]
                    [--folds 0|0,1|all|none] [--n-folds 5] [--output RUN] [--device auto|cpu|cuda] [--seed 0] [--jobs]
--folds none trains on everything and packs RUN/submission.zip with its card; the others train, predict and score each fold, explain some of
its rankings, list the training photographs whose name is doubtful, measure from the saved embeddings what each model adds, and put the scores on the leaderboard beside RUN.
Protocol identify asks who is on each photograph, or whether it is a new individual; the default of hwi, hwi-small and happywhale.
It makes one fold, 0. With --folds none it trains twice: on all but an inner fold, to fit the naming, then on everything.
Protocol suite has nothing to train on: python -m eval.folds makes it, solution.predict answers it with any weights.
--jobs trains nothing: it makes the folds and prints the trainings that are left, for each model and fold a command on a line of its own, for any
scheduler and any machines that share RUN. When they have ended, the same ./run_all.sh without --jobs does the rest. See docs/machines.md.
example: ./run_all.sh --data photographs --recipe small --folds all --output runs/photographs
END
}

absolute() { [[ $1 == /* ]] && echo "$1" || echo "$PWD/$1"; }
refuse() { echo "error: $1; see ./run_all.sh --help" >&2; exit 2; }

python_for_venv() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"; return
        fi
    done
    refuse "no Python 3.11 or newer found (set PYTHON to one)"
}

# set_up [VENV LOCK]: the packages that a lock file names, each of exactly the bytes whose hash stands there.
set_up() {
    local venv="$root/${1:-.venv}" lock="$root/${2:-requirements.lock}"
    if ! cmp -s "$lock" "$venv/installed.lock"; then
        echo "setting up ${venv##*/} (once; a few minutes, about 6 GB with CUDA libraries)"
        local python; python=$(python_for_venv)
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --require-hashes --requirement "$lock"
        "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable "$root"
        cp "$lock" "$venv/installed.lock"
    fi
    PATH="$venv/bin:$PATH"
}

# hold RUN: against a second run in it, until this one and its steps have ended, however they end.
hold() {
    exec 9< "$1"
    python -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(1)
except OSError:
    pass  # a file system without locks' || refuse "--output is '$1', where another run is at work; wait for it, or choose another --output"
}

step() { local name=$1; shift; python -m eval.step "$run/summary.csv" "$name" -- "$@"; }

# training NAME WEIGHTS ARGUMENTS: trains all models of the recipe, or with --jobs prints a command for each that is not there yet.
training() {
    local name=$1 weights=$2 model; shift 2
    local command=(-m solution.train --recipe "$recipe" --output "$weights" "$@" --seed "$seed" --device "$device" --resume)
    [[ -n $jobs ]] || { step "$name" python "${command[@]}"; return; }
    for model in $models; do
        [[ -f $weights/$model.npz ]] || { printf '%q ' "$(command -v python)" "${command[@]}"; echo "--model $model"; } >&3
    done
}

end_of_jobs() { [[ -z $jobs ]] || { echo "When these have ended, the same ./run_all.sh without --jobs does the rest."; exit 0; }; }

# train NAME DATA WEIGHTS: on all of DATA; where individuals are named, on all but an inner fold, on which naming is fitted.
train() {
    local data=$2 inner="${3%/*}/inner" more=()
    if [[ $protocol == identify ]]; then
        step "inner${1#train}" python -m eval.folds "$2" --output "$inner" --protocol identify --seed "$seed" --keep
        data="$inner/0/train"; more=(--validate "$inner/0")
    fi
    training "$1" "$3" --data "$data" ${more[@]+"${more[@]}"}
}

run_fold() {
    local k=$1 fold="$run/folds/$1" out="$run/fold$1" chances=() gallery=()
    [[ -d $fold ]] || refuse "--folds: there is no fold $k in $run/folds"
    [[ $protocol != identify ]] || chances=(--probabilities "$out/probabilities.csv") gallery=(--gallery "$fold/train")
    train "train fold $k" "$fold/train" "$out/weights"
    [[ -z $jobs ]] || return 0
    # --no-cache: eval.ensembles tells what each model costs by the seconds of this prediction.
    step "predict fold $k" python -m solution.predict --data "$fold/test" --weights "$out/weights" --output "$out/submission.csv" \
        --embeddings "$out/embeddings" --timings "$out/timings.json" --no-cache --device "$device" ${chances[@]+"${chances[@]}"}
    step "score fold $k" python -m eval.score "$out/submission.csv" "$fold/truth.csv" --json "$out/score.json" --per-query "$out/per_query.csv" ${chances[@]+"${chances[@]}"} > /dev/null
    step "explain fold $k" python -m solution.explain --data "$fold/test" --weights "$out/weights" --submission "$out/submission.csv" \
        --output "$out/explain" --device "$device" ${gallery[@]+"${gallery[@]}"}
    step "doubts fold $k" python -m solution.doubts --data "$fold/train" --weights "$out/weights" --output "$out/doubts.csv" --device "$device"
}

# measured: whether RUN has a score of this recipe on folds of these very data, which the card of what is packed may tell.
measured() {
    local of
    [[ -f $run/score.json && -f $run/folds/manifest.json ]] || return 1
    for of in "$run"/fold*/weights/recipe.yaml; do cmp -s "$of" "$run/weights/recipe.yaml" || return 1; done
    grep -q "$(python -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$data/metadata.csv")" "$run/folds/manifest.json"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data="" recipe="" protocol="" folds="0" n_folds="5" run="" device="auto" seed="0" demo="" jobs=""

if [[ ${1:-} == test ]]; then
    [[ $# -eq 1 || ($# -eq 2 && $2 =~ ^--(all|lowest)$) ]] || refuse "test takes --all, --lowest or nothing"
    if [[ ${2:-} == --lowest ]]; then set_up .venv-lowest lowest.lock; else set_up; fi
    cd "$root"
    [[ ${2:-} == --all ]] && exec python -m pytest -m ""
    exec python -m pytest
fi

while [[ $# -gt 0 ]]; do
    case $1 in
        --help|-h) usage; exit 0 ;;
        --jobs) jobs=yes; exec 3>&1 1>&2; shift ;;  # the commands alone go to the standard output
        --data|--recipe|--protocol|--folds|--n-folds|--output|--device|--seed) [[ $# -ge 2 ]] || refuse "$1 needs a value" ;;&
        --data) data=$2; shift 2 ;;
        --recipe) recipe=$2; shift 2 ;;
        --protocol) protocol=$2; shift 2 ;;
        --folds) folds=$2; shift 2 ;;
        --n-folds) n_folds=$2; shift 2 ;;
        --output) run=$2; shift 2 ;;
        --device) device=$2; shift 2 ;;
        --seed) seed=$2; shift 2 ;;
        *) refuse "unknown option $1" ;;
    esac
done
[[ $folds =~ ^(all|none|[0-9]+(,[0-9]+)*)$ ]] || refuse "--folds is '$folds'; it must be all, none, or numbers such as 0,1,2"
[[ -z $(tr , '\n' <<< "$folds" | sort | uniq -d) ]] || refuse "--folds is '$folds'; a fold stands there twice"
[[ $n_folds =~ ^[0-9]+$ ]] || refuse "--n-folds is '$n_folds'; it must be a whole number"
[[ $seed =~ ^[0-9]+$ ]] || refuse "--seed is '$seed'; it must be a whole number"
[[ $device =~ ^(auto|cpu|cuda)$ ]] || refuse "--device is '$device'; it must be auto, cpu or cuda"
[[ $protocol != suite ]] || refuse "--protocol suite has nothing to train on; python -m eval.folds DATA --output FOLDS --protocol suite makes it, then python -m solution.predict --data FOLDS/0/test --weights WEIGHTS --output submission.csv and python -m eval.leaderboard FILE --add submission.csv --fold FOLDS/0 --name NAME"
[[ $protocol =~ ^(|whale|encounter|stratified|time|identify)$ ]] || refuse "--protocol is '$protocol'; it must be whale, encounter, stratified, time or identify"
[[ -n $data || -n $recipe ]] || { demo=yes; recipe=demo; }
[[ -n $data || -n $demo ]] || refuse "--recipe $recipe needs --data"
[[ -n $recipe ]] || refuse "--data $data needs --recipe, such as small"
name=${recipe##*/}; name=${name%.yaml}
run=${run:-runs/$name}

if [[ -n $demo ]]; then
    echo "The demo: draws a few hundred photographs of belugas, trains $recipe on four fifths of the whales, and ranks the rest."
    echo "Set-up takes a few minutes once; after it under 10 minutes on two cores and under 4 GB of memory. Everything goes to $run/."
else
    echo "Recipe $recipe on $data, folds $folds. Everything goes to $run/; how long it takes is said after each model's first epoch."
fi
set_up
told=$(python -c 'import sys; from solution import files, recipe
def tell(): told = recipe.load(sys.argv[1]); print(told.protocol, *(model.name for model in told.models))
files.run(tell)' "$recipe")
read -r own_protocol models <<< "$told"
protocol=${protocol:-$own_protocol}
[[ $protocol != identify || $folds =~ ^(0|all|none)$ ]] || refuse "--folds is '$folds'; protocol identify makes the one fold 0"
mkdir -p "$run" 2> /dev/null || refuse "--output is '$run'; no folder can be made there"
hold "$run"
if [[ -n $jobs ]]; then  # commands that may start anywhere
    data=$(absolute "$data") run=$(absolute "$run")
    [[ $recipe != *.y*ml ]] || recipe=$(absolute "$recipe")
fi
if [[ -n $demo ]]; then
    data="$run/data"
    rm -f "$run/.data.lock"  # of a run that was killed just as its data were there
    [[ -d $data ]] || step "data" python -m eval.importers demo --output "$data" --seed "$seed"
fi

if [[ $folds == none ]]; then
    if [[ $protocol == identify ]]; then
        train "train for naming" "$data" "$run/naming/weights"
        training "train" "$run/weights" --data "$data" --gallery "$data"
        end_of_jobs
        cp "$run/naming/weights/identify.json" "$run/weights/.identify.json.part"
        mv "$run/weights/.identify.json.part" "$run/weights/identify.json"
    else
        train "train" "$data" "$run/weights"
        end_of_jobs
    fi
    scores=()
    if measured; then scores=(--scores "$run/score.json"); fi
    step "pack" python -m submission.pack --weights "$run/weights" --output "$run/submission.zip" ${scores[@]+"${scores[@]}"}
    exit 0
fi
step "folds" python -m eval.folds "$data" --output "$run/folds" --protocol "$protocol" --n-folds "$n_folds" --seed "$seed" --keep
[[ $folds != all ]] || folds=$(cd "$run/folds" && ls -d [0-9]* | sort -n | paste -sd,)
for k in ${folds//,/ }; do run_fold "$k"; done
end_of_jobs
step "ensembles" python -m eval.ensembles "$run" --folds "$folds" --leaderboard "$(dirname "$run")/leaderboard.csv"
python -m eval.summary "$run" --folds "$folds"
step "report" python -m eval.report "$run" --output "$run/report.html"
