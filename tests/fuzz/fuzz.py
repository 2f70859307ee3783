#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""fuzz.py: this module's routers beside one that has no flowtable, through stories at random.

Each story has a seed. Where a router differs from the one without a flowtable, the story is cut
down to what it takes to see that, and printed; --story plays a file with such lines. The routers
are plain (no flowtable), hw (`flags offload`) and soft (without).
"""

import argparse
import itertools
import re
import secrets
import sys
import time
from pathlib import Path

import known
import play
import stories
import world as worlds


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nic", required=True, help="the emulated NIC's module")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--stories", type=int, default=0, help="at random, at least")
    parser.add_argument("--seed", type=int, help="this story only")
    parser.add_argument("--base", type=int, help="the first story's seed; random")
    parser.add_argument("--story", nargs="*", default=[], help="files with the lines of a story")
    parser.add_argument("--corpus", help="a folder of stories, before those at random")
    parser.add_argument("--only", default="", help="kinds of events, with commas between")
    parser.add_argument("--skip", help="regular expression: such differences end a story")
    parser.add_argument("--routers", default="plain,hw,soft")
    parser.add_argument("--slowness", type=float, default=1)
    parser.add_argument("--shrink", type=float, default=40, help="seconds for each, at most")
    parser.add_argument("--verbose", action="store_true", help="each step")
    return parser.parse_args()


MANY = 200  # stories, in which each known difference should have been seen


class Fuzz:
    def __init__(self, args):
        self.args = args
        self.judge = known.Judge()
        self.frames = self.stories = self.steps = 0
        self.found = {}

    def play(self, lines):
        """What differs, and the player."""
        world = worlds.World(self.args.routers.split(","), self.args.nic)
        try:
            world.build()
            player = play.Player(world, self.args.slowness, self.judge)
            player.verbose = self.args.verbose
            found = player.play(lines)
            self.frames += player.frames
            return found, player
        finally:
            world.unmake()

    def story(self, title, lines, shrink=True):
        """Whether all routers go through it as the yardstick does."""
        self.stories += 1
        Path("/dev/kmsg").write_text(f"fuzz: {title}\n", encoding="utf-8")
        self.steps += len(lines)
        all_found, player = self.play(lines)
        signs = {}
        for found in all_found:
            signs.setdefault(play.signature(found), found)
        for sign, found in signs.items():
            if self.args.skip and re.search(self.args.skip, sign):
                continue
            seen = self.found.setdefault(sign, [])
            seen.append(title)
            if len(seen) > 1 and shrink:
                say(f"{title}: as {seen[0]}: {sign}")
                continue
            if shrink:
                self.report(title, *self.shrink(lines[:player.index + 1], found))
            else:
                self.report(title, lines, found)
            break
        return not signs

    def report(self, title, lines, found):
        print(f"not ok {title}: {found.router}: {found.step}: {found.kind}: {found.what}")
        say(play.signature(found))
        say(f"plain: {found.text}")
        say("the story:")
        for line in lines:
            say(f"    {line}")

    def shrink(self, lines, found):
        """The shortest story that still shows the same, as far as time allows."""
        end = time.monotonic() + self.args.shrink
        like = play.signature(found)

        def still(lines):
            if time.monotonic() > end:
                return None
            return next((it for it in self.play(lines)[0] if play.signature(it) == like), None)

        # What it takes at least, and then with what the router is told to be.
        last = len(lines) - 1
        flow = re.match(r"flow \d+", found.what)
        least = {at for at, line in enumerate(lines)
                 if at == last or line.startswith("ruleset")
                 or (line.startswith("flow ") and (not flow or line.startswith(flow[0] + " ")))}
        nft = {at for at, line in enumerate(lines) if line.startswith("r nft")}
        for chosen in least, least | nft:
            fewer = [line for at, line in enumerate(lines) if at in chosen]
            if again := still(fewer):
                lines, found = fewer, again
                break
        size = max(1, len(lines) // 2)
        while True:
            at, dropped = 0, False
            while at < len(lines):
                fewer = lines[:at] + lines[at + size:]
                if fewer and (again := still(fewer)):
                    lines, found, dropped = fewer, again, True
                else:
                    at += size
            if size == 1 and not dropped or time.monotonic() > end:
                return lines, found
            size = max(1, size // 2)

    def run(self):
        args = self.args
        for file in args.story:
            self.story(Path(file).stem, read(file))
        if args.story:
            return
        if args.seed is not None:
            self.story(f"SEED={args.seed}", stories.tell(args.seed, args.only))
            return
        end = time.monotonic() + args.seconds
        for file in sorted(Path(args.corpus).glob("*.story")) if args.corpus else ():
            if self.story(f"the story {file.stem}", read(file), shrink=False):
                print(f"ok the story {file.stem}: all routers do what one without a flowtable does")
        if time.monotonic() >= end and not args.stories:
            return
        first = args.base if args.base is not None else secrets.randbelow(10**8)
        say(f"the first story's seed is {first}")
        for seed in itertools.count(first):
            if time.monotonic() >= end and seed - first >= args.stories:
                break
            self.story(f"SEED={seed}", stories.tell(seed, args.only))


def read(file):
    """The lines of a story; # begins a comment."""
    lines = map(str.strip, Path(file).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def say(text):
    print(f"# {text}", flush=True)


def main():
    fuzz = Fuzz(parse())
    fuzz.run()
    say(f"{fuzz.stories} stories, {fuzz.steps} steps, {fuzz.frames} frames into each router")
    for item in fuzz.judge.unseen() if fuzz.stories >= MANY else ():
        say(f"not seen: {item.name} ({item.where})")
    if not fuzz.found:
        print(f"ok {fuzz.stories} stories: all that leaves the routers is alike", flush=True)
    return bool(fuzz.found)


if __name__ == "__main__":
    sys.exit(main())
