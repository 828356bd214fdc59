#!/usr/bin/env python3
"""llama.cpp's own HTTP server on the CPU, on loopback, from the package xllamacpp: for tests and trials.

    llama_cpu.py MODEL.gguf PORT [--slots 4] [--cache-tokens 8192] [--threads 1] [--wait SECONDS]

A machine with GPUs wants llama-server itself, which `el.llama_server` starts.
"""
import argparse
import os
import signal
import socket
import sys
import time


def arguments():
    parser = argparse.ArgumentParser(description="llama.cpp's HTTP server on the CPU")
    parser.add_argument("model")
    parser.add_argument("port", type=int)
    parser.add_argument("--slots", type=int, default=4, help="sequences at once")
    parser.add_argument("--cache-tokens", type=int, default=8192, help="tokens of the KV cache, over all slots")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wait", type=float, default=0.0, help="seconds before it begins to start")
    return parser.parse_args()


def main():
    given = arguments()
    if not os.path.exists(given.model):
        sys.exit(f"error: failed to load model, '{given.model}': no such file")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", given.port))
        except OSError as error:
            sys.exit(f"error: couldn't bind HTTP server socket, port {given.port}: {error}")
    # Python would wait for the server's threads before it ended.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    time.sleep(given.wait)
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = given.model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = given.port
    parameters.n_parallel = given.slots
    parameters.n_ctx = given.cache_tokens
    parameters.cpuparams.n_threads = given.threads
    parameters.cpuparams_batch.n_threads = given.threads
    parameters.n_gpu_layers = 0
    parameters.endpoint_metrics = True
    # Nothing of an earlier prompt may be kept: a prefill that is not computed costs nothing.
    parameters.cache_prompt = False
    parameters.cache_ram_mib = 0
    server = xllamacpp.Server(parameters)
    print(f"listening at {server.listening_address}", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
