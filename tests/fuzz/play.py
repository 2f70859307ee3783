# SPDX-License-Identifier: GPL-2.0
"""play.py: plays a story to the routers, and finds out where they differ from the yardstick.

A story is a list of lines, each a step:

  flow N KIND CLIENT SERVER [tos=T] [dport=P] [answers=no|p1|p2]    a connection begins
  answer N yes|no|p1|p2             from now on its server answers, or does not, or by this uplink
  send N to|back WORD…              one odd frame of it: ttl=N, tos=N, size=N, df, frag=BYTES,
                                    options, zero, rst[=OFFSET], fin, dmac=MAC, pcp=N
  end N                             says nothing any more
  rounds N                          frames of all connections, to and back, N times
  pass MS                           rounds for so long
  mac HOST N                        the host has another MAC, and tells it
  mute HOST, unmute HOST            it does not say its MAC any more
  roam HOST PORT                    it is there now, and tells it
  vlan PORT ID WORDS                p1 becomes a VLAN device on top of the port, which is q1 then
  bridge 0 WORDS                    p0 becomes a bridge, with the ports q0 and q3
  ruleset WORDS                     the table with the flowtable, see rulesets.py
  bare                              the table with the flowtable goes
  nic KNOB VALUE                    of the emulated NIC
  r COMMAND…                        on each router

After each step the flows go on until all routers do what the yardstick
does, and go on doing it with their flows where they belong. How long that may take, see window().
"""

import collections
import re
import shlex
import time
from dataclasses import dataclass, field
from xml.etree import ElementTree

import rulesets
from flow import Flow, is_at_home
from nic import knob
from packets import ACK
from world import LIMIT

# Seconds: what the kernel tells; what is only compared; the ruleset; what the polls of the NIC's
# flows find.
TOLD, COMPARED, RULESET, POLLED = 0.05, 1.0, 4.0, 6.0
PATIENCE = 2.5  # for so much longer it is looked whether a difference ends
STEADY = 3  # rounds in which nothing changes


class Ill(Exception):
    """The story cannot be played: not the routers' fault."""


def signature(found):
    """What is the same of differences that have the same cause, as far as that can be seen."""
    step = re.sub(r" tmpl .*| priority \d+| proto \w+| -[46]", "", found.step)
    step = re.sub(r"[0-9a-f:.]*[0-9][0-9a-f:./]*", "N", step)
    nothing = "".join("x" if side else "-" for side in (found.right, found.wrong))
    what = re.sub(r"^flow \d+ \w+(\d) .*?: (\w+) .*", r"IPv\1 \2", found.what)
    if found.kind == "conntrack":
        proto = re.sub(r"^flow .*?: ", "", found.what).split()[0]
        what = f"{found.text.rsplit(': ', 1)[1]} {proto}"
    return f"{found.router} {found.kind} {nothing} {what} at: {step}"


@dataclass
class Difference:
    router: str
    kind: str  # frame, bad, late, conntrack, command
    step: str
    text: str
    what: str = ""  # the frame that was sent in, or the connection
    frame: object = None
    right: list = field(default_factory=list)
    wrong: list = field(default_factory=list)
    lines: list = field(default_factory=list)


def window(step):
    """How long a router may take to follow, in seconds; Documentation/truth.md has it."""
    words = step.split()
    if words[0] == "r":
        if "egress-qos-map" in step:
            return POLLED
        if words[1] == "nft":
            return RULESET
        if words[1] == "conntrack" or re.search("filter|setdefault|master| up$", step):
            return COMPARED
        return TOLD
    return {"mac": TOLD, "mute": COMPARED, "ruleset": COMPARED, "flow": 0, "answer": 0}.get(
        words[0], TOLD)


class Player:
    def __init__(self, world, slowness=1.0, known=None):
        self.world = world
        self.yardstick, *self.others = world.routers
        self.flows = {}
        self.known = known or (lambda difference: None)
        self.slowness = slowness
        self.step, self.index = "", 0
        self.lines = []
        self.verbose = False
        self.frames = self.rounds = 0
        self.strict = False
        self.late = collections.defaultdict(float)
        self.longest_round = 0.001

    # --- one turn of frames

    def exchange(self, sent):
        """Sends [(flow, back, number, port, [frame])].

        Returns {router: {number, or None of frames without: [(port, Seen)]}}, and
        {number: (flow, back, frame)}.
        """
        world = self.world
        by_number = {}
        for flow, back, number, port, parts in sent:
            by_number[number] = flow, back, parts[0]
            for part in parts:
                world.send(port, world.tagged(port, part))
        self.frames += len(sent)
        out = {router: collections.defaultdict(list) for router in world.routers}
        for router, port, seen in world.drain():
            if world.mute and seen.is_unreachable():
                continue  # it comes when the neighbour's timer says so
            if seen.number in by_number:
                out[router][seen.number].append((port, seen))
            elif not seen.multicast and seen.number is None:
                out[router][None].append((port, seen))
        for number, answers in out[self.yardstick].items():
            if number is None:
                continue
            flow, back, frame = by_number[number]
            for port, seen in answers:
                if is_at_home(seen, back, flow) and not seen.fragment:
                    flow.arrived(back, port, seen, frame)
                    break
        return out, by_number

    def compare(self, out, by_number):
        """What differs, first what is bad by itself."""
        found = []
        for router in self.others:
            for number in {None, *out[self.yardstick], *out[router]}:
                right, wrong = out[self.yardstick][number], out[router][number]
                bad = [seen for _, seen in wrong if seen.bad]
                same = (sorted((port, seen.key) for port, seen in right)
                        == sorted((port, seen.key) for port, seen in wrong))
                if same and not bad:
                    continue
                flow, back, frame = by_number.get(number, (None, None, None))
                if flow and flow.by_chance:
                    continue
                what = "frames of its own"
                if flow:
                    what = f"{flow}: {'answer' if back else 'request'} {self.tell_sent(frame)}"
                text = f"{self.tell(right)}  |  {router.kind}: {self.tell(wrong)}"
                kind = "frame"
                if bad and not any(seen.bad for _, seen in right):
                    kind, text = "bad", f"{text}, which {bad[0].bad}"
                found.append(Difference(router.kind, kind, self.step, text, what, frame, right,
                                        wrong, self.lines))
        return [difference for difference in found if not self.known(difference)]

    def tell(self, answers):
        if not answers:
            return "nothing"
        return " + ".join(f"p{port}: {seen.tell(self.world.names)}" for port, seen in answers)

    @staticmethod
    def tell_sent(frame):
        f = frame.f
        return (f"{f['saddr']}:{f['sport']} > {f['daddr']}:{f['dport']} {f['proto']}"
                f" ttl {f['ttl']} len {len(frame.l3_bytes())}"
                + (f" flags {f['flags']:#x} seq {f['seq']}" if f["proto"] == "tcp" else ""))

    def round(self):
        """A frame of each connection to its server and one back; the differences."""
        begin = time.monotonic()
        found = []
        self.rounds += 1
        # Where only the LAN may begin a connection, answers may come first.
        for back in (True, False) if self.strict and self.rounds % 2 else (False, True):
            sent = [(flow, back, *self.one(flow.frame(self.world, back)))
                    for flow in self.flows.values() if flow.may(back)]
            if sent:
                found += self.compare(*self.exchange(sent))
        self.flows = {number: flow for number, flow in self.flows.items() if not flow.by_chance}
        self.longest_round = max(self.longest_round, time.monotonic() - begin)
        return found

    @staticmethod
    def one(result):
        number, port, frame = result
        return number, port, [frame]

    # --- steps

    def play(self, lines):
        """The differences of the first step that has some."""
        self.lines = lines
        for self.index, self.step in enumerate(lines):
            begin = time.monotonic()
            found = self.act(self.step.split())
            if self.verbose:
                print(f"# {time.monotonic() - begin:6.2f} s  {self.step}", flush=True)
                for router in self.others:
                    for key, entry in conntrack(router).items():
                        print(f"#     {router.kind}: {key}: {entry}", flush=True)
            if found:
                return found
        self.step = "(the end)"
        return self.compare_conntrack()

    def act(self, words):
        world, verb = self.world, words[0]
        match verb:
            case "flow":
                number = int(words[1])
                self.flows[number] = Flow(number, *words[2:5], words[5:])
                return self.settle(0.0)
            case "answer":
                if flow := self.flows.get(int(words[1])):
                    flow.answers = words[2]
                return self.settle(0.0)
            case "end":
                self.flows.pop(int(words[1]), None)
                return []
            case "send":
                flow = self.flows.get(int(words[1]))
                back = words[2] == "back"
                if not flow or not flow.may(back):
                    return []
                number, port, parts = flow.special(world, back, words[3:])
                found = self.compare(*self.exchange([(flow, back, number, port, parts)]))
                return found or self.settle(0.0)
            case "rounds":
                return next((found for _ in range(int(words[1])) if (found := self.round())), [])
            case "pass":
                end = time.monotonic() + int(words[1]) / 1000
                while time.monotonic() < end:
                    if found := self.round():
                        return found
                return []
            case "mac":
                world.new_mac(words[1], int(words[2]))
                world.drain()
            case "roam":
                world.at[words[1]] = int(words[2])
                world.tell(words[1])
                world.drain()
            case "mute":
                world.mute.add(words[1])
            case "unmute":
                world.mute.discard(words[1])
            case "vlan" | "bridge":
                lines = "\n".join(world.port(int(words[1]), verb, words[2:]))
                world.mute.update({"box"} if verb == "bridge" else ())
                text = dict.fromkeys(world.routers, lines)
                if found := self.command(["ip", "-batch", "-"], text):
                    return found
                world.tune([int(words[1])])
            case "ruleset":
                self.strict = "strict" in words
                text = {router: rulesets.table(router.kind, world.devices, words[1:])
                        for router in world.routers}
                if found := self.command(["nft", "-f", "-"], text):
                    return found
            case "bare":
                self.acknowledge()
                # The flows leave the flowtable; conntrack is compared as it is then.
                return self.command(["nft", "delete", "table", "inet", "fw"])
            case "nic":
                knob(words[1], " ".join(words[2:]))
            case "r":
                if found := self.command(shlex.split(self.step)[1:]):
                    return found
                if words[1] == "conntrack":
                    return self.settle(window(self.step)) or self.wait_for_connections()
            case _:
                raise Ill(f"no such step: {self.step}")
        return self.settle(window(self.step))

    def command(self, command, text=None):
        """On all routers at the same time; a difference if it does not go the same everywhere."""
        world = self.world
        if command[0] == "sysctl":
            done = []
            for router in world.routers:
                name, _, value = command[-1].partition("=")
                done.append((router.write(name.replace(".", "/"), value), ""))
            statuses = [not status for status, _ in done]
        else:
            started = [router.start(*command, text=text and text[router])
                       for router in world.routers]
            outs = [process.communicate(timeout=LIMIT)[0] for process in started]
            statuses = [bool(process.returncode) for process in started]
            done = list(zip(statuses, outs))
        world.drain()
        return [Difference(router.kind, "command", self.step,
                           f"{'fails' if statuses[0] else 'works'} | {router.kind}:"
                           f" {'fails' if statuses[i] else 'works'}: {done[i][1].strip()}")
                for i, router in enumerate(world.routers) if statuses[i] != statuses[0]]

    def places(self):
        """Where the flows are: what this is about changes when an entry comes or goes."""
        return frozenset().union(*(self.world.rules(router) for router in self.others))

    def settle(self, allowed):
        """Rounds until nothing differs and no flow moves any more; what differs for too long."""
        if not self.flows:
            return []
        begin = time.monotonic()
        steady, places, first = 0, None, None
        while True:
            found = self.round()
            passed = time.monotonic() - begin
            here = self.places()
            steady = steady + 1 if here == places and not found else 0
            places = here
            if found:
                last = passed
                # What was sent before the time was over may differ.
                sent = passed - self.longest_round
                first = first or [difference for difference in found
                                  if sent > self.grace(allowed, difference.router)]
                if first and passed > self.grace(allowed) + PATIENCE * self.slowness:
                    first[0].text += f"  (and still after {passed:.1f} s)"
                    return first
            elif steady >= STEADY:
                if not first:
                    return []
                first[0].kind = "late"
                first[0].text += f"  (until {last * 1000:.0f} ms after the step)"
                return first

    def wait_for_connections(self):
        """Until all routers have the same connections again, so that they can go on alike.

        For the NIC's packets there is none, and what the host sees of a flow first may be an
        answer, which begins a connection the other way. That is no router's fault, and ends the
        flow here.
        """
        end = time.monotonic() + PATIENCE * self.slowness
        while True:
            tables = self.tables()
            found = self.compare_tables(tables, lambda mine, other: None in (mine, other))
            if not found:
                return []
            if time.monotonic() > end:
                break
            if found := self.round():
                return found
        for number, flow in list(self.flows.items()):
            if any(flow.is_of(key) and key.split()[1] != flow.to["saddr"]
                   for table in tables.values() for key in table):
                del self.flows[number]
        return [difference for difference in found if difference.what.startswith("flow ")
                and int(difference.what.split()[1]) in self.flows]

    def grace(self, allowed, router="soft"):
        """How long frames may differ: not much more than is promised, on a machine that has time.

        Without `flags offload`, all is only compared, new entries too.
        """
        if router == "soft":
            allowed = max(allowed, COMPARED)
        return 2 * allowed * self.slowness + 5 * self.longest_round

    # --- the end

    def acknowledge(self):
        """TCP's ends say what they have got, as time-outs are shorter while data wait for that."""
        for back in (False, True):
            sent = [(flow, back, *self.one(flow.frame(self.world, back, flags=ACK, payload=b"")))
                    for flow in self.flows.values() if flow.proto == "tcp" and flow.is_open(back)]
            self.exchange(sent)

    def compare_conntrack(self):
        if self.lines[-1] != "bare":
            self.acknowledge()
        end = time.monotonic() + PATIENCE * self.slowness
        while True:
            found = self.compare_tables(self.tables(), lambda mine, other: True)
            if not found or time.monotonic() > end:
                break
        # With what the polls find, UDP is assured; without `flags offload`, an answer in an entry's
        # first second has passed conntrack by, and the next one does not.
        end = time.monotonic() + POLLED * self.slowness
        late = (": ASSURED", ": UNREPLIED")
        while any(it.text.endswith(late) for it in found) and time.monotonic() < end:
            if differ := self.round():
                return differ
            found = self.compare_tables(self.tables(), lambda mine, other: True)
        return found

    def tables(self):
        return {router: conntrack(router) for router in self.world.routers}

    def is_over(self, key):
        """A connection of a flow that the story has ended, or whose answers are connections."""
        return not any(flow.is_of(key) for flow in self.flows.values())

    def compare_tables(self, tables, matters):
        found = []
        right = tables[self.yardstick]
        for router in self.others:
            for key in {*right, *tables[router]}:
                mine, other = right.get(key), tables[router].get(key)
                text = differ(mine, other)
                if not text or not matters(mine, other):
                    continue
                if self.is_over(key):
                    continue
                flow = next((f"{flow}: " for flow in self.flows.values() if flow.is_of(key)), "")
                found.append(Difference(router.kind, "conntrack", self.step,
                                        f"{mine} | {router.kind}: {other}: {text}", flow + key,
                                        right=[mine], wrong=[other], lines=self.lines))
        return [difference for difference in found if not self.known(difference)]


@dataclass
class Entry:
    """What conntrack knows of a connection; while it is offloaded, no timeout."""

    reply: str
    state: str
    flags: frozenset
    mark: str
    timeout: int

    def __str__(self):
        words = [self.state, *(f"[{flag}]" for flag in sorted(self.flags)), f"reply {self.reply}"]
        if self.mark != "0":
            words.append(f"mark {self.mark}")
        if self.timeout is not None:
            words.append(f"for {self.timeout} s")
        return " ".join(filter(None, words))


def tuple_of(meta):
    """The addresses and ports, or the number of an ICMP echo, of a direction."""
    layer3, layer4 = meta.find("layer3"), meta.find("layer4")
    words = [layer4.get("protoname")]
    words += [child.text for child in (*layer3, *layer4)
              if child.text and child.tag not in ("type", "code")]
    return " ".join(words)


def conntrack(router):
    """Its table, by protocol and original direction."""
    table = {}
    for family in ("ipv4", "ipv6"):
        # What is printed for people says of what is offloaded nothing else.
        status, out = router.run("conntrack", "-L", "-f", family, "-o", "xml")
        if status:
            raise Ill(f"conntrack: {out}")
        at = out.find("<conntrack>")
        if at < 0:
            continue  # it is empty
        text = out[at:out.rindex("</conntrack>") + len("</conntrack>")]
        for flow in ElementTree.fromstring(text).iter("flow"):
            metas = {meta.get("direction"): meta for meta in flow.iter("meta")}
            rest = metas["independent"]
            timeout = rest.findtext("timeout")
            table[tuple_of(metas["original"])] = Entry(
                tuple_of(metas["reply"]), rest.findtext("state") or "",
                frozenset(tag.upper() for tag in ("assured", "unreplied", "offload", "hw_offload")
                          if rest.find(tag) is not None),
                rest.findtext("mark") or "0", None if timeout is None else int(timeout))
    return table


def differ(right, other):
    """What differs in what conntrack knows, in a word; None if nothing does."""
    if right is None or other is None:
        return "no connection" if other is None else "a connection too many"
    for name in ("ASSURED", "UNREPLIED"):
        if (name in right.flags) != (name in other.flags):
            return name
    if other.timeout is None and right.state and right.state != "ESTABLISHED":
        return "still offloaded"
    if right.mark != other.mark:
        return "mark"
    if right.reply != other.reply:
        return "reply direction"
    if right.state != other.state and other.timeout is not None:
        return "state"
    if None not in (right.timeout, other.timeout):
        # Flowtables take the time off in which an entry has been idle, 30 s.
        if not right.timeout - 35 <= other.timeout <= right.timeout + 15:
            return "timeout"
    return None
