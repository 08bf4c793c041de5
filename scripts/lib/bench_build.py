"""Building an image: all of it, with what is remembered, and with many files to look at."""

import os

DOCKERFILE = """\
FROM localhost/busybox AS base
ARG WHO=nobody
RUN echo $WHO > /who && mkdir /data
WORKDIR /data
COPY . /data/
RUN find /data -type f | wc -l > /count
RUN rm -r /data/0 && ln -s /count /data/count
FROM base
ENV A=b
LABEL c=d
COPY --from=base /count /again
CMD ["cat", "/again"]
"""
FILES = 2000


def build(bench):
    """Nobody has said how fast it must be: the figures are told without an aim."""
    bench.busybox()
    context = os.path.join(bench.scratch, "context")
    for directory in range(FILES // 100):
        os.makedirs(os.path.join(context, str(directory)))
        for number in range(100):
            with open(os.path.join(context, str(directory), str(number)), "w", encoding="utf-8") as file:
                file.write(f"{directory} {number}\n" * 50)
    with open(os.path.join(context, "Dockerfile"), "w", encoding="utf-8") as file:
        file.write(DOCKERFILE)
    os.system(f"chmod -R a+rX {bench.scratch}")
    isolation = ["--network", "none"]

    def side(command, *flags):
        return lambda: bench.timed([*command, "build", "-q", *isolation, *flags, "-t", "built", context])

    for name, flags in (("everything new", ["--no-cache"]), ("nothing new", [])):
        bench.pair(f"`build` of 5 steps with {FILES} files, {name}", None, side(bench.umiak, *flags),
                   side(bench.podman, *flags, "--layers"), rounds=5)
    bench.clean()
