"""The fuzz: damaged files and hostile options, given to every verb.

Each run of a verb must end with exit code 0 or 2, in bounded time and memory, without a traceback,
and touch nothing but its output; see `judgement`. `make fuzz` runs thousands of them, `test_fuzz`
a few. `corpus` makes the healthy files; `damage`, `pictures` and `weights` spoil them; `targets`
choose what is spoilt and which verbs read it; `runner` runs a verb in a forked process, and
`campaign` counts.
"""
