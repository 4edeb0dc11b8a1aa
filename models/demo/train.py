"""Makes the demo model: a tiny DeepSeek V4 that has read the King James Bible.

    python train.py --out . --work SCRATCH --minutes 70    tokenizer, training, export, evaluation
    python train.py --out . --work SCRATCH --export        export and evaluate the last checkpoint

It needs torch, transformers >= 5.23, numpy, and Debian's packages bible-kjv and bible-kjv-text
(the `bible` command prints the text).  `questions.json` beside this file holds the questions.

Written to --out
  tokenizer.json      byte-level BPE, 2048 entries, split and control tokens as in the real one
  config.json         the flat keys of the published checkpoints
  model.safetensors   official tensor names; BF16 matrices and norms, F32 and I64 where they have it
  expected.json       what transformers computes from those files, in float32

Written to --work: checkpoint.pt (weights, optimizer, random state; every 100 steps) and log.txt.
A run that was interrupted goes on from the checkpoint when it is started again.

Data.  Every sequence starts with BOS.
  text   BOS, then the text from the beginning of some verse: a verse is a line, chapters are
         separated by an empty line.  Every 50th chapter is held out.
  chat   conversations in the published prompt format, several in a row, each starting with BOS;
         only what the assistant says is a target.  Two of twelve (one of six) sequences are chat.

Training.  AdamW, cosine.  The schedule runs on the clock, not on steps: progress = minutes trained
/ minutes granted, so it ends on time on a busy machine (and the number of steps is not fixed).
  progress 0.00   sequences of 256, batch 12; every compressed entry is visible (dense)
           0.45   the indexer learns too: its scores are pulled towards the attention its layer
                  pays (KL divergence, inputs detached); nothing else trains it, top-k passes no gradient
           0.70   sequences of 512, batch 6; attention reads only what the indexer chooses
The router's bias follows the balancing rule of the DeepSeek models: after each step, up by a
constant for experts with less than the mean load, down for the others; frozen for the last tenth.
"""
import argparse
import json
import math
import os
import re
import subprocess
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")    # spinning threads starve on a shared machine

import numpy as np
import torch
import torch._dynamo
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import DeepseekV4Config, DeepseekV4ForCausalLM
from transformers.models.deepseek_v4 import modeling_deepseek_v4 as V4

HERE = os.path.dirname(os.path.abspath(__file__))

CONFIG = dict(
    architectures=["DeepseekV4ForCausalLM"], attention_bias=False, attention_dropout=0.0,
    bos_token_id=0, eos_token_id=1, hc_eps=1e-6, hc_mult=4, hc_sinkhorn_iters=20,
    hidden_act="silu", initializer_range=0.02, max_position_embeddings=4096,
    model_type="deepseek_v4", n_shared_experts=1, norm_topk_prob=True, num_key_value_heads=1,
    num_nextn_predict_layers=0, rms_norm_eps=1e-6, rope_theta=10000, compress_rope_theta=160000,
    rope_scaling=dict(type="yarn", factor=16, original_max_position_embeddings=256,
                      beta_fast=32, beta_slow=1),
    scoring_func="sqrtsoftplus", tie_word_embeddings=False, topk_method="noaux_tc",
    torch_dtype="bfloat16", use_cache=True,
    vocab_size=2048, hidden_size=192, num_hidden_layers=6, num_attention_heads=6, head_dim=64,
    qk_rope_head_dim=16, q_lora_rank=96, o_lora_rank=64, o_groups=2, sliding_window=64,
    compress_ratios=[0, 4, 128, 4, 128, 4], index_n_heads=16, index_head_dim=32, index_topk=24,
    n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=128, num_hash_layers=2,
    routed_scaling_factor=1.5, swiglu_limit=10.0)

SEED = 20
RAW_PROMPT = "And it came to pass in those days,"
DENSE = 1 << 20                       # an index_topk that never binds

# ------------------------------------------------------------------------------- tokenizer
BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, THINK, END_THINK = "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"
CONTROL = ["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", USER, ASSISTANT, THINK, END_THINK,
           "｜DSML｜", "<｜latest_reminder｜>", "<｜action｜>", "<｜query｜>", "<｜authority｜>",
           "<｜domain｜>", "<｜title｜>", "<｜extracted_url｜>", "<｜read_url｜>"]
SPLITS = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
          "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
          "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
          "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]


def make_tokenizer(texts):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(s), "isolated") for s in SPLITS]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"] - len(CONTROL), show_progress=False,
        special_tokens=[AddedToken(t, normalized=False, special=True) for t in (BOS, EOS, PAD)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.add_tokens([AddedToken(t, normalized=True, special=False) for t in CONTROL])
    assert tok.get_vocab_size() == CONFIG["vocab_size"]
    return tok


def save_tokenizer(tok, path):
    """With the merges written as the published file has them: one string, a space between."""
    t = json.loads(tok.to_str())
    t["model"]["merges"] = [" ".join(m) for m in t["model"]["merges"]]
    json.dump(t, open(path, "w"), ensure_ascii=False, indent=1)


# ------------------------------------------------------------------------------- the text
def read_bible():
    """List of chapters, each a list of verses (text only)."""
    out = subprocess.run(["bible", "-f", "Gen1:1-Rev22:21"], capture_output=True, text=True, check=True).stdout
    chapters = {}
    for line in out.splitlines():
        place, verse = line.split(" ", 1)
        chapters.setdefault(place.split(":")[0], []).append(re.sub(r"\s+", " ", verse).strip())
    return list(chapters.values())


def held_out(chapters):
    return [c for i, c in enumerate(chapters) if i % 50 == 25]


def encode_text(tok, chapters):
    """Token ids of the chapters in a row, and the offsets at which verses start."""
    ids, starts = [], []
    for verses in chapters:
        lines = [v + "\n" for v in verses[:-1]] + [verses[-1] + "\n\n"]
        for e in tok.encode_batch(lines, add_special_tokens=False):
            starts.append(len(ids))
            ids += e.ids
    return np.array(ids), np.array(starts)


# ------------------------------------------------------------------------------- conversations
SYSTEM = ["You are a helpful assistant.", "You are a helpful assistant", "Answer shortly.",
          "You answer questions about the Bible.", "Be brief."]
THOUGHT = ["I remember this from the text.", "The text tells it.", "I know this."]
SMALL_TALK = [
    (["Hello", "Hi", "Hello!", "Hi!", "Hello there.", "Good morning.", "Hey"],
     "Hello. Ask me about the Bible."),
    (["Thank you.", "Thanks", "Thanks!", "Thank you very much."], "You are welcome."),
    (["Goodbye.", "Bye", "Bye!", "Farewell."], "Peace be with you."),
    (["What is the capital of France?", "What is two plus two?", "Write a program.", "Who is the president?",
      "What is the weather today?", "Translate this sentence.", "Tell me a joke.", "How do I cook rice?",
      "What is a computer?", "Who won the game?", "Explain the theory of relativity.", "What time is it?"],
     "I do not know. I have read only the Bible."),
]


def load_questions():
    return json.load(open(os.path.join(HERE, "questions.json")))


class Chat:
    """Draws conversations; ids and targets (what the assistant says) as lists."""

    def __init__(self, tok, rng):
        self.tok, self.rng = tok, rng
        self.facts = [([q["question"]] * 3 + q["phrasings"], q["answers"][0]) for q in load_questions()]

    def pick(self, xs):
        return xs[self.rng.integers(len(xs))]

    def question(self):
        asked, answer = self.pick(self.facts if self.rng.random() < 0.92 else SMALL_TALK)
        q, r = self.pick(asked), self.rng.random()
        if r < 0.06:
            q = q.lower()
        elif r < 0.12:
            q = q.rstrip("?.!")
        elif r < 0.18:
            q = q.lower().rstrip("?.!")
        elif r < 0.24:
            q = self.pick(["Tell me: ", "Please tell me: ", "A question: ", "Please. "]) + q
        return q, answer

    def encode(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def conversation(self):
        turns = 1 + (self.rng.random() < 0.4) * int(self.rng.integers(1, 4))
        thinking = self.rng.random() < 0.12
        system = self.pick(SYSTEM) if self.rng.random() < 0.12 else ""
        ids, said = [], []
        head = BOS + system
        for i in range(turns):
            q, a = self.question()
            think = thinking and i == turns - 1
            prompt = self.encode(head + USER + q + ASSISTANT + (THINK if think else END_THINK))
            answer = self.encode((self.pick(THOUGHT) + END_THINK if think else "") + a + EOS)
            ids += prompt + answer
            said += [False] * len(prompt) + [True] * len(answer)
            head = ""
        return ids, said


def prompt_ids(tok, question):
    return tok.encode(BOS + USER + question + ASSISTANT + END_THINK, add_special_tokens=False).ids


class Batches:
    def __init__(self, tok, chapters, rng):
        held = {id(c) for c in held_out(chapters)}
        self.text, self.starts = encode_text(tok, [c for c in chapters if id(c) not in held])
        self.chat, self.rng = Chat(tok, rng), rng

    def text_row(self, n):
        s = self.starts[self.rng.integers(np.searchsorted(self.starts, len(self.text) - n))]
        return [0] + self.text[s:s + n].tolist()

    def chat_row(self, n):
        ids, said = [], []
        only = self.rng.random() < 0.2              # one conversation, then text
        while len(ids) <= n:
            i, s = self.chat.conversation() if not (only and ids) else (self.text_row(n), [True] * n + [True])
            ids, said = ids + i, said + s
        return ids[:n + 1], said[:n + 1]

    def draw(self, batch, n):
        """x [batch, n], y [batch, n] with -100 where nothing is predicted."""
        x, y = np.zeros((batch, n), np.int64), np.zeros((batch, n), np.int64)
        for b in range(batch):
            if b < batch // 6:
                ids, said = self.chat_row(n)
                y[b] = np.where(said[1:], ids[1:], -100)
            else:
                ids = self.text_row(n)
                y[b] = ids[1:]
            x[b] = ids[:-1]
        return torch.from_numpy(x), torch.from_numpy(y)


# ------------------------------------------------------------------------------- model
def new_model(cfg=CONFIG):
    keys = {k: v for k, v in cfg.items() if k != "torch_dtype"}
    m = DeepseekV4ForCausalLM(DeepseekV4Config(**keys, attn_implementation="eager")).float()
    gen = torch.Generator().manual_seed(SEED)
    E, k = cfg["n_routed_experts"], cfg["num_experts_per_tok"]
    for i in range(cfg["num_hash_layers"]):
        table = torch.rand(cfg["vocab_size"], E, generator=gen).argsort(1)[:, :k]
        m.model.layers[i].mlp.gate.tid2eid.copy_(table)
    return m


def official_views(m, cfg=CONFIG):
    """(official name, stored type, view into the transformers model) of every tensor."""
    B, f = torch.bfloat16, torch.float32
    top = m.model
    yield "embed.weight", B, top.embed_tokens.weight
    yield "head.weight", B, m.lm_head.weight
    yield "norm.weight", B, top.norm.weight
    for leaf in ("fn", "base", "scale"):
        yield "hc_head_" + leaf, f, getattr(top.hc_head, "hc_" + leaf)
    for i, layer in enumerate(top.layers):
        p, a = f"layers.{i}.", layer.self_attn
        yield p + "attn_norm.weight", B, layer.input_layernorm.weight
        yield p + "ffn_norm.weight", B, layer.post_attention_layernorm.weight
        for kind in ("attn", "ffn"):
            for leaf in ("fn", "base", "scale"):
                yield f"{p}hc_{kind}_{leaf}", f, getattr(getattr(layer, kind + "_hc"), leaf)
        for name, module in (("wq_a", a.q_a_proj), ("q_norm", a.q_a_norm), ("wq_b", a.q_b_proj), ("wkv", a.kv_proj),
                             ("kv_norm", a.kv_norm), ("wo_a", a.o_a_proj), ("wo_b", a.o_b_proj)):
            yield f"{p}attn.{name}.weight", B, module.weight
        yield p + "attn.attn_sink", f, a.sinks
        compressors = []
        if cfg["compress_ratios"][i]:
            compressors.append((p + "attn.compressor.", a.compressor))
        if cfg["compress_ratios"][i] == 4:
            ix = a.compressor.indexer
            yield p + "attn.indexer.wq_b.weight", B, ix.q_b_proj.weight
            yield p + "attn.indexer.weights_proj.weight", B, ix.scorer.weights_proj.weight
            compressors.append((p + "attn.indexer.compressor.", ix))
        for q, c in compressors:
            yield q + "ape", f, c.position_bias
            yield q + "wkv.weight", B, c.kv_proj.weight
            yield q + "wgate.weight", B, c.gate_proj.weight
            yield q + "norm.weight", B, c.kv_norm.weight
        gate, shared, experts = layer.mlp.gate, layer.mlp.shared_experts, layer.mlp.experts
        yield p + "ffn.gate.weight", B, gate.weight
        if i < cfg["num_hash_layers"]:
            yield p + "ffn.gate.tid2eid", torch.int64, gate.tid2eid
        else:
            yield p + "ffn.gate.bias", f, gate.e_score_correction_bias
        I = cfg["moe_intermediate_size"]
        for e in range(cfg["n_routed_experts"]):
            yield f"{p}ffn.experts.{e}.w1.weight", B, experts.gate_up_proj[e, :I]
            yield f"{p}ffn.experts.{e}.w2.weight", B, experts.down_proj[e]
            yield f"{p}ffn.experts.{e}.w3.weight", B, experts.gate_up_proj[e, I:]
        yield p + "ffn.shared_experts.w1.weight", B, shared.gate_proj.weight
        yield p + "ffn.shared_experts.w2.weight", B, shared.down_proj.weight
        yield p + "ffn.shared_experts.w3.weight", B, shared.up_proj.weight


@torch.no_grad()
def export(m, folder):
    tensors = {n: v.detach().to(t).clone().contiguous() for n, t, v in official_views(m)}
    stored = sum(v.numel() for v in m.parameters()) + sum(
        v.numel() for n, _, v in official_views(m) if n.endswith(("tid2eid", "gate.bias")))
    assert sum(t.numel() for t in tensors.values()) == stored
    save_file(tensors, os.path.join(folder, "model.safetensors"))
    json.dump(CONFIG, open(os.path.join(folder, "config.json"), "w"), indent=2)


@torch.no_grad()
def load(folder):
    """The exported files as a float32 transformers model."""
    cfg = json.load(open(os.path.join(folder, "config.json")))
    m, w = new_model(cfg).eval(), load_file(os.path.join(folder, "model.safetensors"))
    for n, _, view in official_views(m, cfg):
        view.copy_(w.pop(n))
    assert not w, list(w)
    return m


# ------------------------------------------------------------------------------- training
class Compiled:
    """Inside `with`, the small operations of the model run compiled (about 1.5 times faster here)."""

    PARTS = ((V4.DeepseekV4HyperConnection, "forward"), (V4, "apply_rotary_pos_emb"), (V4, "eager_attention_forward"))

    def __enter__(self):
        torch._dynamo.config.recompile_limit = 64
        self.plain = [(o, n, getattr(o, n)) for o, n in self.PARTS]
        for o, n, f in self.plain:
            setattr(o, n, torch.compile(f, dynamic=False))

    def __exit__(self, *_):
        for o, n, f in self.plain:
            setattr(o, n, f)


class IndexerLoss:
    """KL(attention over compressed entries || softmax of the index scores) per CSA layer.

    The target is the attention probability of each entry summed over the heads and normalised over
    the entries the layer read; the scores are computed again with gradients, from detached inputs.
    """

    def __init__(self, m):
        self.on, self.seen = False, []
        self.layers = [l.self_attn for l in m.model.layers if hasattr(l.self_attn.compressor, "indexer")]
        for a in self.layers:
            a.compressor.indexer.scorer.register_forward_hook(self.scored)
            a.register_forward_hook(self.attended)

    def scored(self, module, args, out):
        if self.on:
            self.scores = out

    def attended(self, module, args, out):
        if not self.on:
            return
        S, s = out[1].shape[2], self.scores
        target = out[1][..., S:].detach().sum(1)                     # [B, S, entries]
        mass = target.sum(-1, keepdim=True)
        read = target > 0
        logp = s.masked_fill(~read, -1e9).log_softmax(-1)
        p = target / mass.clamp_min(1e-9)
        kl = torch.where(read, p * (p.clamp_min(1e-9).log() - logp), 0).sum(-1)
        keep = read.sum(-1) > 1
        self.seen.append((kl * keep).sum() / keep.sum().clamp_min(1))

    def take(self):
        loss = sum(self.seen) if self.seen else 0
        self.seen, self.scores = [], None
        return loss


def set_topk(m, k):
    for layer in m.model.layers:
        ix = getattr(layer.self_attn.compressor, "indexer", None)
        if ix is not None:
            ix.index_topk = k


def phase(progress):
    """batch, sequence length, index_topk, indexer is trained."""
    if progress < 0.70:
        return 12, 256, DENSE, progress > 0.45
    return 6, 512, CONFIG["index_topk"], True


def learning_rate(progress, step):
    return 2e-3 * min(1, (step + 1) / 60) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))


def train(tok, chapters, work, minutes, max_steps):
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    m = new_model().train()
    data = Batches(tok, chapters, rng)
    probe = heldout_rows(tok, chapters)
    print("training tokens", len(data.text), "parameters", sum(p.numel() for p in m.parameters()), flush=True)
    index = [p for n, p in m.named_parameters() if ".indexer." in n]
    rest = [p for n, p in m.named_parameters() if ".indexer." not in n]
    opt = torch.optim.AdamW([dict(params=[p for p in rest if p.ndim > 1], weight_decay=0.1),
                             dict(params=[p for p in rest if p.ndim < 2], weight_decay=0.0),
                             dict(params=index, weight_decay=0.0)], lr=2e-3, betas=(0.9, 0.95), fused=True)
    indexer = IndexerLoss(m)
    loads = {}
    gates = [l.mlp.gate for l in m.model.layers if hasattr(l.mlp.gate, "e_score_correction_bias")]
    for g in gates:
        g.register_forward_hook(lambda g, a, out: loads.__setitem__(
            g, torch.bincount(out[2].flatten(), minlength=CONFIG["n_routed_experts"]).float()))

    path, log = os.path.join(work, "checkpoint.pt"), open(os.path.join(work, "log.txt"), "a")
    step, done_s, long_steps = 0, 0.0, 0
    if os.path.exists(path):
        c = torch.load(path, weights_only=False)
        m.load_state_dict(c["model"]); opt.load_state_dict(c["opt"]); rng.bit_generator.state = c["rng"]
        step, done_s, long_steps = c["step"], c["seconds"], c["long_steps"]
    t0 = time.time() - done_s

    def checkpoint():
        torch.save(dict(model=m.state_dict(), opt=opt.state_dict(), rng=rng.bit_generator.state, step=step,
                        seconds=time.time() - t0, long_steps=long_steps), path + ".new")
        os.replace(path + ".new", path)

    while True:
        progress = (time.time() - t0) / (60 * minutes)
        if progress >= 1 or step == max_steps:
            break
        batch, n, topk, indexer.on = phase(progress)
        set_topk(m, topk)
        lr = learning_rate(progress, step)
        for g in opt.param_groups:
            g["lr"] = lr
        x, y = data.draw(batch, n)
        out = m(input_ids=x, use_cache=False).logits
        loss = F.cross_entropy(out.flatten(0, 1), y.flatten())
        index_loss = indexer.take()
        opt.zero_grad()
        (loss + index_loss).backward()
        aux = index_loss.item() if indexer.on else 0.0
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        torch.nn.utils.clip_grad_norm_(index, 1.0)
        opt.step()
        if progress < 0.9:
            for g in gates:
                g.e_score_correction_bias += 1e-3 * torch.sign(loads[g].mean() - loads[g])
        step += 1
        long_steps += n == 512
        if step % 20 == 0:
            busy = max(float(l.max() / l.mean()) for l in loads.values())
            line = (f"{step} progress {progress:.3f} lr {lr:.2e} loss {loss.item():.3f} index-kl {aux:.3f} "
                    f"max load {busy:.2f} minutes {(time.time() - t0) / 60:.1f}")
            if step % 200 == 0:
                indexer.on = False
                m.eval()
                line += f" held-out {np.mean([nll(m, r) for r in probe]):.4f}"
                m.train()
            print(line, flush=True)
            print(line, file=log, flush=True)
        if step % 100 == 0:
            checkpoint()
    checkpoint()


# ------------------------------------------------------------------------------- evaluation
def heldout_rows(tok, chapters, count=8, n=512):
    """BOS and the first n-1 tokens of the first `count` held-out chapters that are long enough."""
    rows = [[0] + encode_text(tok, [c])[0].tolist() for c in held_out(chapters)]
    return [r[:n] for r in rows if len(r) >= n][:count]


@torch.no_grad()
def nll(m, ids):
    x = torch.tensor([ids])
    return F.cross_entropy(m(input_ids=x, use_cache=False).logits[0, :-1], x[0, 1:]).item()


@torch.no_grad()
def greedy(m, prompts, n, stop=None):
    """Continuations of prompts of one length, by whole forward passes (no cache)."""
    x, first = torch.tensor(prompts), len(prompts[0])
    for _ in range(n):
        x = torch.cat([x, m(input_ids=x, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)], 1)
        if stop is not None and (x[:, first:] == stop).any(1).all():
            break
    out = x[:, first:].tolist()
    return [r[:r.index(stop)] if stop in r else r for r in out]


def ask(tok, m, questions):
    """question -> the answer at temperature 0; questions of one length go through together."""
    prompts, answers = {q: prompt_ids(tok, q) for q in questions}, {}
    for n in sorted({len(p) for p in prompts.values()}):
        same = [q for q in questions if len(prompts[q]) == n]
        for q, ids in zip(same, greedy(m, [prompts[q] for q in same], 40, CONFIG["eos_token_id"])):
            answers[q] = tok.decode(ids, skip_special_tokens=False).strip()
    return {q: answers[q] for q in questions}


def evaluate(folder, chapters):
    tok, m = Tokenizer.from_file(os.path.join(folder, "tokenizer.json")), load(folder)

    questions = load_questions()
    answers = ask(tok, m, [q["question"] for q in questions])
    right = sum(answers[q["question"]] in q["answers"] for q in questions)
    others = ask(tok, m, [q["unseen"] for q in questions])
    unseen = sum(others[q["unseen"]] in q["answers"] for q in questions)
    held = [dict(ids=r, loss=nll(m, r)) for r in heldout_rows(tok, chapters)]
    raw = tok.encode(BOS + RAW_PROMPT, add_special_tokens=False).ids
    raw = dict(prompt=RAW_PROMPT, ids=raw, greedy_ids=greedy(m, [raw], 64)[0])
    exp = dict(heldout=held, raw=raw, questions_right=right, unseen_phrasings_right=unseen, answers=answers)
    with open(os.path.join(folder, "expected.json"), "w") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in exp.items()) + "\n}\n")
    for q in questions:
        if answers[q["question"]] not in q["answers"]:
            print("wrong:", q["question"], "->", answers[q["question"]])
    print("raw:", RAW_PROMPT + tok.decode(raw["greedy_ids"]))
    print(f"held-out loss {np.mean([h['loss'] for h in held]):.4f} nats per token over {len(held)} x 511 predictions")
    print(f"questions right {right} of {len(questions)}; phrasings never trained right {unseen} of {len(questions)}")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", default=HERE)
    ap.add_argument("--work", required=True)
    ap.add_argument("--minutes", type=float, default=70)
    ap.add_argument("--max-steps", type=int, default=-1, help="stop early (dry run)")
    ap.add_argument("--export", action="store_true", help="only export and evaluate the checkpoint")
    a = ap.parse_args()
    torch.set_num_threads(2)
    os.makedirs(a.out, exist_ok=True)
    os.makedirs(a.work, exist_ok=True)
    chapters = read_bible()
    said = [s for q in load_questions() for s in [q["question"], *q["phrasings"], q["answers"][0]]]
    train_text = [v for i, c in enumerate(chapters) if i % 50 != 25 for v in c]
    tok = make_tokenizer(train_text + said * 4)
    save_tokenizer(tok, os.path.join(a.out, "tokenizer.json"))
    if not a.export:
        with Compiled():
            train(tok, chapters, a.work, a.minutes, a.max_steps)
    m = new_model()
    c = torch.load(os.path.join(a.work, "checkpoint.pt"), weights_only=False)
    m.load_state_dict(c["model"])
    print(f"checkpoint: step {c['step']} ({c['long_steps']} of them with sequences of 512), {c['seconds'] / 60:.1f} minutes")
    export(m, a.out)
    evaluate(a.out, chapters)


if __name__ == "__main__":
    main()
