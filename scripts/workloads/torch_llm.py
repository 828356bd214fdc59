#!/usr/bin/env python3
"""A plain PyTorch decoder with random weights, built from a model card, that marks its own phases.

    el.command { argv = { "python3", "scripts/workloads/torch_llm.py" }, engine = "torch", gpus = 8 }

Everything comes from the environment that `energylens run` sets; options override it. Dense, mixture-of-experts and
state-space layers; tensor parallelism through torch.distributed (it starts one process per GPU by itself). What the
weights are does not matter for energy, how many there are does; they follow from --seed, however they are split. Each phase is one window, repeated until it has lasted
--min-window-s:

    prefill   batches of one output token
    decode    the other output tokens from a filled cache, again and again
    total     whole batches

`--check` measures nothing: it compares, in fp32, the logits of the cached decode with those of a whole recomputation,
and where there are several processes with those of the same model in one, and fails where they differ.

Limits: no pipeline or data parallelism, no quantised weights; experts are visited in a loop, as a simple engine would.
`--backend python` needs no PyTorch and does no such work: it is there to try a sweep out.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time

DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
STATE = 64  # Numbers that one channel of a state-space layer remembers.
CHUNK = 64  # Tokens that its prefill takes at once.
SAME = 1e-4  # Of the largest logit: what two orders of the same fp32 sums may differ by.


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
    parser.add_argument("--check", action="store_true", help="compare logits instead of measuring")
    asked = parser.parse_args(words)
    for name in ["batch_size", "input_tokens", "output_tokens"]:
        if (getattr(asked, name) or 0) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(asked, name)}; expected a whole number above 0")
    if asked.pipeline_parallel != 1 or asked.data_parallel != 1:
        parser.error("this workload splits by --tensor-parallel alone; leave pipeline_parallel and data_parallel at 1")
    if asked.precision not in DTYPES:
        parser.error(f"--precision is {asked.precision}; expected one of {', '.join(DTYPES)}")
    if asked.check:
        asked.precision = "fp32"
    if asked.tensor_parallel < 1 or asked.vocabulary % asked.tensor_parallel:
        parser.error(f"--tensor-parallel is {asked.tensor_parallel}; expected a divisor of the vocabulary, {asked.vocabulary}")
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

    def close(self):
        pass

    def agree(self, enough):
        return enough


def torch_engine(asked):
    """The decoder itself; what needs PyTorch is in here, so that mistakes in arguments are told without it."""
    import torch
    import torch.distributed as group
    from torch.nn.functional import scaled_dot_product_attention, silu

    kind = asked.device
    if kind == "auto":
        has_xpu = hasattr(torch, "xpu") and torch.xpu.is_available()
        kind = "cuda" if torch.cuda.is_available() else "xpu" if has_xpu else "cpu"
    accelerator = getattr(torch, kind) if kind != "cpu" else None
    if accelerator:
        accelerator.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if asked.tensor_parallel > 1:
        group.init_process_group({"cuda": "nccl", "xpu": "xccl", "cpu": "gloo"}[kind])
    s, dtype = asked.sizes, getattr(torch, DTYPES[asked.precision])
    if asked.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    device = torch.device(kind)
    tools = argparse.Namespace(torch=torch, group=group, attend=scaled_dot_product_attention, silu=silu, dtype=dtype,
                               device=device, accelerator=accelerator)
    with torch.inference_mode():
        return decoder(asked, tools, int(os.environ.get("RANK", 0)), asked.tensor_parallel)


def decoder(asked, tools, rank, ways):
    """The share of one process in the model: of every matrix its rows or its columns."""
    torch, group, attend, silu = tools.torch, tools.group, tools.attend, tools.silu
    s, dtype, device = asked.sizes, tools.dtype, tools.device
    batch, length = asked.batch_size, asked.input_tokens + asked.output_tokens
    # All processes draw the same whole matrices, one after the other, and keep their part of each.
    chance = torch.Generator(device=device).manual_seed(asked.seed)

    def weight(rows, columns):
        return torch.randn(rows, columns, generator=chance, dtype=dtype, device=device).mul_(0.02)

    def rows_of(rows, columns):
        return weight(rows, columns).chunk(ways)[rank].clone()

    def columns_of(rows, columns):
        return weight(rows, columns).chunk(ways, dim=1)[rank].clone()

    def everywhere(x):
        if ways > 1:
            group.all_reduce(x)
        return x

    def gathered(x):
        """The parts of all processes, side by side."""
        if ways == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(ways)]
        group.all_gather(parts, x.contiguous())
        return torch.cat(parts, dim=-1)

    def normal(x):
        return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(dtype)

    class Attention:
        def __init__(self):
            self.heads, self.kv_heads = s.heads // ways, max(1, s.kv_heads // ways)
            queries = rows_of(s.heads * s.head, s.hidden)
            self.into = torch.cat([queries, self.of_cache(), self.of_cache()])
            self.out = columns_of(s.hidden, s.heads * s.head)
            shape = (batch, self.kv_heads, length, s.head)
            self.keys = torch.zeros(shape, dtype=dtype, device=device)
            self.values = torch.zeros(shape, dtype=dtype, device=device)

        def of_cache(self):
            """What makes keys or values; processes share a head of the cache where it has fewer heads than there are."""
            first = rank * s.kv_heads // ways
            whole = weight(s.kv_heads * s.head, s.hidden)
            return whole[first * s.head:(first + self.kv_heads) * s.head].clone()

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
                y = attend(q.reshape(batch, self.kv_heads, shared, s.head), k, v)
                y = y.reshape(batch, 1, -1)
            else:
                k, v = (c.repeat_interleave(shared, dim=1) if shared > 1 else c for c in (k, v))
                y = attend(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, tokens, -1)
            return x + everywhere(y @ self.out.T)

    class FeedForward:
        def __init__(self):
            count = max(1, s.experts)
            self.router = weight(count, s.hidden)
            self.up = [torch.cat([rows_of(s.width, s.hidden), rows_of(s.width, s.hidden)]) for _ in range(count)]
            self.down = [columns_of(s.hidden, s.width) for _ in range(count)]

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
            whole = 2 * s.heads * s.head
            self.into = torch.cat([rows_of(whole, s.hidden), rows_of(whole, s.hidden), weight(2 * STATE, s.hidden)])
            self.out = columns_of(s.hidden, whole)
            self.decay = torch.linspace(0.9, 0.999, 2 * s.heads, device=device).chunk(ways)[rank]
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
            self.embedding, self.head = weight(asked.vocabulary, s.hidden), rows_of(asked.vocabulary, s.hidden)
            self.layers = []
            for layer in range(s.layers):
                # State-space layers are spread evenly among the others.
                is_state = (layer + 1) * s.state_layers // s.layers > layer * s.state_layers // s.layers
                self.layers += [StateSpace()] if is_state else [Attention(), FeedForward()]
            shape = (batch, asked.input_tokens)
            self.prompt = torch.randint(asked.vocabulary, shape, generator=chance, device=device)
            self.last = self.logits = None

        @torch.inference_mode()
        def run(self, tokens, position):
            x = self.embedding[tokens]
            for layer in self.layers:
                x = layer(x, position)
            logits = normal(x[:, -1]) @ self.head.T
            if asked.check:
                self.logits = gathered(logits)
            best, token = logits.max(-1, keepdim=True)
            if ways > 1:
                # The best of each part, and of these the best.
                tokens = gathered(token + rank * logits.shape[-1])
                token = tokens.gather(-1, gathered(best).argmax(-1, keepdim=True))
            self.last = token

        def prefill(self):
            self.run(self.prompt, 0)

        def decode(self, position):
            self.run(self.last, position)

        def wait(self):
            if tools.accelerator:
                tools.accelerator.synchronize()

        def agree(self, enough):
            if ways == 1:
                return enough
            word = torch.tensor([int(enough)], device=device)
            group.broadcast(word, 0)
            return bool(word.item())

        def close(self):
            if ways > 1:
                # Who leaves while another still talks makes that one fail.
                group.barrier()
                group.destroy_process_group()

        @torch.inference_mode()
        def differences(self):
            """How far the cached decode is from recomputing everything, and the parts from the whole model: shares of the
            largest logit."""
            kept, tokens = [], [self.prompt]
            self.prefill()
            for step in range(asked.output_tokens):
                kept.append(self.logits)
                tokens.append(self.last)
                if step + 1 < asked.output_tokens:
                    self.decode(asked.input_tokens + step)
            tokens, worst = torch.cat(tokens, dim=1), {}

            def compare(name, engine):
                worst[name] = 0.0
                for step, logits in enumerate(kept):
                    engine.run(tokens[:, :asked.input_tokens + step], 0)
                    difference = ((engine.logits - logits).abs().max() / logits.abs().max()).item()
                    # What is no number is no agreement.
                    worst[name] = worst[name] if difference <= worst[name] else difference

            compare("cache", self)
            if ways > 1 and rank == 0:
                compare("split", decoder(asked, tools, 0, 1))
            return worst

    return Engine()


def check(engine):
    worst = engine.differences()
    engine.close()
    if engine.speaks:
        print(json.dumps(worst))
    bad = {name: difference for name, difference in worst.items() if not difference <= SAME}
    if bad:
        sys.exit(f"torch_llm.py: logits differ by more than {SAME} of the largest: {bad}")


def started(asked, words):
    """One process for each part, all in this one's group, so that they are ended as one; the first that fails ends all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(asked.tensor_parallel), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared.setdefault("OMP_NUM_THREADS", "1")
    shared.setdefault("GLOO_SOCKET_IFNAME", "lo")
    command = [sys.executable, os.path.abspath(__file__), *words]
    parts = [subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
             for rank in range(asked.tensor_parallel)]
    try:
        while any(part.poll() is None for part in parts):
            if any(part.poll() for part in parts):
                break
            time.sleep(0.05)
    finally:
        for part in parts:
            if part.poll() is None:
                part.kill()
    return max(abs(part.wait()) for part in parts)


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
            sys.exit(started(asked, words))
        engine = torch_engine(asked)
        if asked.check:
            return check(engine)
    counts = windows(engine, asked)
    engine.close()
    if engine.speaks:
        print(json.dumps(counts))
        if asked.result:
            with open(asked.result, "w", encoding="utf-8") as file:
                json.dump(counts, file)


if __name__ == "__main__":
    main(sys.argv[1:])
