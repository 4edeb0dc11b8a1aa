"""Writes what llama.cpp answers to prompts of token ids.

    python3 llama_cpp.py MODEL.gguf PROMPTS.json OUT.json

PROMPTS.json is a list of lists of ids. OUT.json holds for each the natural logarithms of the probabilities
of all tokens that may come next, by id.
"""
import json
import sys

import xllamacpp

model, prompts, out = sys.argv[1:]
prompts = json.load(open(prompts))

params = xllamacpp.CommonParams()
params.model.path = model
params.n_ctx = 1024
params.n_parallel = 1
params.n_gpu_layers = 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
params.warmup = params.fit_params = False
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
# Flash attention sums in half precision.
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)

answers = []
for ids in prompts:
    request = {"prompt": ids, "n_predict": 1, "n_probs": 1 << 20, "temperature": 0.0, "cache_prompt": False}
    answer = server.handle_completions(request)
    first = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    by_id = {token["id"]: token["logprob"] for token in first}
    answers.append([by_id[i] for i in range(len(by_id))])
json.dump(answers, open(out, "w"))
