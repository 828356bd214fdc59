#!/usr/bin/env python3
"""A plain PyTorch decoder with random weights, built from a model card, that marks its own phases.

    el.command { argv = { "python3", "scripts/workloads/torch_llm.py" }, engine = "torch", gpus = 8 }

Everything comes from the environment that `energylens run` sets; options override it. Dense, mixture-of-experts and
state-space layers; tensor parallelism through torch.distributed (it starts one process per GPU by itself). What the
weights are does not matter for energy, how many there are does. Each phase is one window, repeated until it has lasted
--min-window-s:

    prefill   batches of one output token
    decode    the other output tokens from a filled cache, again and again
    total     whole batches

Limits: no pipeline or data parallelism, no quantised weights; experts are visited in a loop, as a simple engine would.
`--backend python` needs no PyTorch and does no such work: it is there to try a sweep out.
"""

import argparse
import contextlib
import json
import os
import socket
import sys
import time

DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
STATE = 64  # Numbers that one channel of a state-space layer remembers.
CHUNK = 64  # Tokens that its prefill takes at once.


# Marks.

MARKS = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
MARKS.settimeout(5)


def mark(event, phase):
    path = os.environ.get("ENERGYLENS_MARKS")
    if path:
        run_id = os.environ.get("ENERGYLENS_RUN_ID", f"pid-{os.getpid()}")
        text = {"event": event, "phase": phase, "run_id": run_id, "t_mono_ns": time.monotonic_ns()}
        MARKS.sendto(json.dumps(text).encode(), path)


@contextlib.contextmanager
def marked(phase, speaks):
    if speaks:
        mark("begin", phase)
    yield
    if speaks:
        mark("end", phase)


# What is asked.


def arguments(words):
    def of(name, kind=int, default=None):
        value = os.environ.get("ENERGYLENS_" + name.upper())
        return kind(value) if value else default

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model-card", default=of("model_card", str), help="JSON, or the path of a file with it")
    parser.add_argument("--precision", default=of("precision", str, "bf16"), help=", ".join(DTYPES))
    for name, default in [("batch_size", None), ("input_tokens", None), ("output_tokens", None), ("tensor_parallel", 1),
                          ("pipeline_parallel", 1), ("data_parallel", 1), ("warmup_batches", 1), ("max_batches", 10_000)]:
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=of(name, int, default))
    parser.add_argument("--min-window-s", type=float, default=of("min_window_s", float, 5.0))
    parser.add_argument("--result", default=of("result", str), help="where the counts go, as JSON")
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=["torch", "python"], default="torch")
    parser.add_argument("--device", choices=["auto", "cuda", "xpu", "cpu"], default="auto")
    asked = parser.parse_args(words)
    for name in ["batch_size", "input_tokens", "output_tokens"]:
        if (getattr(asked, name) or 0) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(asked, name)}; expected a whole number above 0")
    if asked.pipeline_parallel != 1 or asked.data_parallel != 1:
        parser.error("this workload splits by --tensor-parallel alone; leave pipeline_parallel and data_parallel at 1")
    if asked.precision not in DTYPES:
        parser.error(f"--precision is {asked.precision}; expected one of {', '.join(DTYPES)}")
    if not asked.model_card:
        parser.error("no model card; expected --model-card or $ENERGYLENS_MODEL_CARD")
    try:
        text = asked.model_card
        if not text.lstrip().startswith("{"):
            with open(text, encoding="utf-8") as file:
                text = file.read()
        asked.sizes = sizes(json.loads(text), asked)
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"the model card cannot be used: {error!r}" if isinstance(error, KeyError) else
                     f"the model card cannot be used: {error}")
    return asked


def sizes(card, asked):
    """The shapes of a decoder that has the card's layers, width, cache and parameters."""
    layers, hidden = int(card["n_layers"]), int(card["hidden_size"])
    experts, chosen = int(card.get("num_experts") or 0), int(card.get("experts_per_token") or 0)
    state_layers = round(layers * float(card.get("ssm_share") or 0.0))
    attention_layers = layers - state_layers
    head = next((d for d in (128, 64, 32, 16) if hidden % d == 0), hidden)
    heads = hidden // head
    # The card counts keys and values in two bytes each.
    kv_width = float(card["kv_bytes_per_token"]) / (4 * attention_layers) if attention_layers else 0
    kv_heads = min(heads, max(1, round(kv_width / head)))
    while heads % kv_heads:
        kv_heads += 1
    attention = hidden * (2 * hidden + 2 * kv_heads * head)
    state = hidden * (6 * hidden + 2 * STATE)
    rest = float(card["params"]) - 2 * asked.vocabulary * hidden - attention_layers * attention - state_layers * state
    # A pure state-space layer has no feed-forward part.
    width = rest / (3 * hidden * attention_layers * max(1, experts)) if attention_layers else 0.0
    step = 16 * asked.tensor_parallel
    width = max(step, round(width / step) * step) if attention_layers else 0
    if attention_layers and rest <= 0:
        raise ValueError(f"{card['params']:.3g} parameters leave none for the feed-forward layers")
    if heads % asked.tensor_parallel or (attention_layers and kv_heads % asked.tensor_parallel and
                                         asked.tensor_parallel % kv_heads):
        raise ValueError(f"{heads} heads with {kv_heads} for the cache cannot be split {asked.tensor_parallel} ways")
    return argparse.Namespace(layers=layers, hidden=hidden, head=head, heads=heads, kv_heads=kv_heads, width=width,
                              experts=experts, chosen=max(1, chosen), state_layers=state_layers)


# Windows.


def windows(engine, asked):
    """Warms up and measures; every process of a group does the same number of batches."""
    steps = asked.output_tokens - 1

    def repeat(phase, batch):
        batches, begin = 0, time.monotonic()
        with marked(phase, engine.speaks):
            while True:
                batch()
                engine.wait()
                batches += 1
                enough = time.monotonic() - begin >= asked.min_window_s or batches >= asked.max_batches
                if engine.agree(enough):
                    break
        return batches, (time.monotonic() - begin) / batches

    def decode():
        for step in range(steps):
            engine.decode(asked.input_tokens + step)

    def whole():
        engine.prefill()
        decode()

    with marked("warmup", engine.speaks):
        for _ in range(asked.warmup_batches):
            whole()
        engine.wait()
    counts = {}
    counts["prefill_batches"], counts["mean_ttft_s"] = repeat("prefill", engine.prefill)
    if steps > 0:
        engine.prefill()
        engine.wait()
        counts["decode_batches"], decode_s = repeat("decode", decode)
        counts["mean_tpot_s"] = decode_s / steps
        counts["total_batches"], _ = repeat("total", whole)
    return counts


class Stand:
    """Spins for about as long as tokens would take a very small model."""

    speaks = True

    def __init__(self, asked):
        self.asked = asked

    def prefill(self):
        sum(range(200 * self.asked.batch_size * self.asked.input_tokens))

    def decode(self, _position):
        sum(range(2_000 * self.asked.batch_size))

    def wait(self):
        pass

    def agree(self, enough):
        return enough


def torch_engine(asked):
    """The decoder itself; what needs PyTorch is in here, so that mistakes in arguments are told without it."""
    import torch
    import torch.distributed as group
    from torch.nn.functional import scaled_dot_product_attention, silu

    rank, ways = int(os.environ.get("RANK", 0)), asked.tensor_parallel
    kind = asked.device
    if kind == "auto":
        has_xpu = hasattr(torch, "xpu") and torch.xpu.is_available()
        kind = "cuda" if torch.cuda.is_available() else "xpu" if has_xpu else "cpu"
    accelerator = getattr(torch, kind) if kind != "cpu" else None
    if accelerator:
        accelerator.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if ways > 1:
        group.init_process_group({"cuda": "nccl", "xpu": "xccl", "cpu": "gloo"}[kind])
    s, dtype = asked.sizes, getattr(torch, DTYPES[asked.precision])
    if asked.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(asked.seed + rank)
    device = torch.device(kind)
    batch, length = asked.batch_size, asked.input_tokens + asked.output_tokens

    def weight(rows, columns):
        return torch.randn(rows, columns, dtype=dtype, device=device).mul_(0.02)

    def everywhere(x):
        if ways > 1:
            group.all_reduce(x)
        return x

    def normal(x):
        return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(dtype)

    class Attention:
        def __init__(self):
            self.heads, self.kv_heads = s.heads // ways, max(1, s.kv_heads // ways)
            self.into = weight((self.heads + 2 * self.kv_heads) * s.head, s.hidden)
            self.out = weight(s.hidden, self.heads * s.head)
            shape = (batch, self.kv_heads, length, s.head)
            self.keys = torch.zeros(shape, dtype=dtype, device=device)
            self.values = torch.zeros(shape, dtype=dtype, device=device)

        def __call__(self, x, position):
            tokens = x.shape[1]
            parts = (normal(x) @ self.into.T).view(batch, tokens, -1, s.head).transpose(1, 2)
            q, k, v = parts.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
            end = position + tokens
            self.keys[:, :, position:end], self.values[:, :, position:end] = k, v
            shared = self.heads // self.kv_heads
            k, v = self.keys[:, :, :end], self.values[:, :, :end]
            if tokens == 1:
                # Heads that share a part of the cache ask it together, so that it is read once.
                y = scaled_dot_product_attention(q.reshape(batch, self.kv_heads, shared, s.head), k, v)
                y = y.reshape(batch, 1, -1)
            else:
                k, v = (c.repeat_interleave(shared, dim=1) if shared > 1 else c for c in (k, v))
                y = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, tokens, -1)
            return x + everywhere(y @ self.out.T)

    class FeedForward:
        def __init__(self):
            width, count = s.width // ways, max(1, s.experts)
            self.router = weight(count, s.hidden)
            self.up = [weight(2 * width, s.hidden) for _ in range(count)]
            self.down = [weight(s.hidden, width) for _ in range(count)]

        def expert(self, i, x):
            gate, up = (x @ self.up[i].T).chunk(2, dim=-1)
            return (silu(gate) * up) @ self.down[i].T

        def __call__(self, x, _position):
            flat = normal(x).reshape(-1, s.hidden)
            if not s.experts:
                return x + everywhere(self.expert(0, flat)).view_as(x)
            share, chosen = (flat @ self.router.T).float().softmax(-1).topk(s.chosen)
            if ways > 1:
                group.broadcast(chosen, 0)
            y = torch.zeros_like(flat)
            for i in range(s.experts):
                token, place = (chosen == i).nonzero(as_tuple=True)
                if token.numel():
                    y.index_add_(0, token, self.expert(i, flat[token]) * share[token, place, None].to(dtype))
            return x + everywhere(y).view_as(x)

    class StateSpace:
        """A linear recurrence with one decay per head; the prefill takes it chunk by chunk."""

        def __init__(self):
            self.heads = 2 * s.heads // ways
            self.into = weight(2 * self.heads * s.head + 2 * STATE, s.hidden)
            self.out = weight(s.hidden, self.heads * s.head)
            self.decay = torch.linspace(0.9, 0.999, self.heads, device=device)
            self.state = torch.zeros(batch, self.heads, STATE, s.head, dtype=torch.float32, device=device)

        def __call__(self, x, position):
            tokens = x.shape[1]
            if position == 0:
                self.state.zero_()
            inner = self.heads * s.head
            v, gate, b, c = (normal(x) @ self.into.T).split([inner, inner, STATE, STATE], dim=-1)
            v = v.view(batch, tokens, self.heads, s.head).transpose(1, 2).float()
            b, c = b.float().unsqueeze(1), c.float().unsqueeze(1)
            pieces = []
            for at in range(0, tokens, CHUNK):
                vs, bs, cs = v[:, :, at:at + CHUNK], b[:, :, at:at + CHUNK], c[:, :, at:at + CHUNK]
                n = vs.shape[2]
                steps = torch.arange(n, device=device)
                reach = (steps[:, None] - steps[None, :]).clamp(min=0)
                weights = (self.decay[:, None, None] ** reach).tril()
                old = self.decay[:, None] ** (steps + 1)
                pieces.append(((cs @ bs.transpose(-1, -2)) * weights) @ vs + (cs @ self.state) * old[None, :, :, None])
                left = self.decay[:, None] ** (n - 1 - steps)
                new = bs.transpose(-1, -2) @ (vs * left[None, :, :, None])
                self.state = self.state * (self.decay ** n)[None, :, None, None] + new
            y = torch.cat(pieces, dim=2).transpose(1, 2).reshape(batch, tokens, inner).to(dtype) * silu(gate)
            return x + everywhere(y @ self.out.T)

    class Engine:
        speaks = rank == 0

        def __init__(self):
            self.embedding, self.head = weight(asked.vocabulary, s.hidden), weight(asked.vocabulary // ways, s.hidden)
            self.layers = []
            for layer in range(s.layers):
                # State-space layers are spread evenly among the others.
                is_state = (layer + 1) * s.state_layers // s.layers > layer * s.state_layers // s.layers
                self.layers += [StateSpace()] if is_state else [Attention(), FeedForward()]
            self.prompt = torch.randint(asked.vocabulary, (batch, asked.input_tokens), device=device)
            if ways > 1:
                group.broadcast(self.prompt, 0)
            self.last = None

        @torch.inference_mode()
        def run(self, tokens, position):
            x = self.embedding[tokens]
            for layer in self.layers:
                x = layer(x, position)
            self.last = (normal(x[:, -1]) @ self.head.T).argmax(-1, keepdim=True)
            if ways > 1:
                group.broadcast(self.last, 0)

        def prefill(self):
            self.run(self.prompt, 0)

        def decode(self, position):
            self.run(self.last, position)

        def wait(self):
            if accelerator:
                accelerator.synchronize()

        def agree(self, enough):
            if ways == 1:
                return enough
            word = torch.tensor([int(enough)], device=device)
            group.broadcast(word, 0)
            return bool(word.item())

    with torch.inference_mode():
        return Engine()


def main(words):
    asked = arguments(words)
    if asked.backend == "python":
        engine = Stand(asked)
    else:
        try:
            import torch  # noqa: F401
        except ImportError as error:
            sys.exit(f"torch_llm.py: PyTorch cannot be imported ({error}); --backend python needs none and computes nothing")
        if asked.tensor_parallel > 1 and "RANK" not in os.environ:
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={asked.tensor_parallel}"]
            os.execv(sys.executable, [sys.executable, *launcher, os.path.abspath(__file__), *words])
        engine = torch_engine(asked)
    counts = windows(engine, asked)
    if engine.speaks:
        print(json.dumps(counts))
        if asked.result:
            with open(asked.result, "w", encoding="utf-8") as file:
                json.dump(counts, file)


if __name__ == "__main__":
    main(sys.argv[1:])
