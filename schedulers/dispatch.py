"""Applies the pure decisions to the board: which batch goes to which device now, and which device is served first."""

from collections import Counter
from enum import StrEnum
from itertools import product

from imgdiffd.pipeline import DEPTH, LaneKey, Stage
from imgdiffd.schedulers.batching import BatchOption, Patience, choose_batch, find_slot
from imgdiffd.schedulers.board import Board
from imgdiffd.schedulers.devices import Device, InFlightBatch
from imgdiffd.schedulers.queues import DeviceQueue, Entry, Suspects
from imgdiffd.schedulers.reasons import Reason
from imgdiffd.schedulers.sharing import DeviceLoad, share
from imgdiffd.schedulers.stealing import Victim, choose_theft, leaving_price_s
from imgdiffd.schedulers.work import Batch


class Dispatcher:
    """Takes batches off the board's deques and sends them. No method waits; the time is given."""

    def __init__(self, board: Board, patience: Patience, *, in_flight: int, ahead_s: float) -> None:
        self.batch_sizes: dict[Stage, Counter[int]] = {stage: Counter() for stage in DEPTH}  # of those sent so far
        self.batch_reasons: Counter[StrEnum] = Counter()
        self._board = board
        self._costs = board.costs
        self._limits = board.limits
        self._patience = patience
        self._in_flight = in_flight
        self._ahead_s = ahead_s
        self._batches = 0

    def dispatch(self, now_s: float) -> tuple[tuple[InFlightBatch, ...], float | None]:
        """Every batch to be sent now, and when to look again without an event.

        Idle devices come first: their own work, then stolen work, then small batches that they held; only then is a
        second batch sent to those that run one, so that it could still be stolen. Background work waits until a device
        finds nothing else, neither its own nor another's.
        """
        up = [device for device in self._board.devices.values() if device.up]
        for device in up:
            device.until_s = None
        sent: list[InFlightBatch] = []
        classes = (False, True) if self._board.background else (True,)
        for background, step in product(classes, (self._own, self._stolen, self._held)):
            for device in up:
                if not device.in_flight and (batch := step(device, now_s, background)):
                    sent.append(batch)
        for device in up:
            while device.in_flight and (batch := self._ahead(device, now_s)):
                sent.append(batch)
        until = [device.until_s for device in up if device.until_s is not None]
        return tuple(sent), min(until, default=None)

    def _ahead(self, device: Device, now_s: float) -> InFlightBatch | None:
        slot = find_slot(
            now_s=now_s,
            in_flight=len(device.in_flight),
            max_in_flight=self._in_flight,
            suspect_runs=any(sent.suspect for sent in device.in_flight),
            head_in_s=device.head_in_s(now_s),
            rest_s=device.rest_s(),
            ahead_s=self._ahead_s,
        )
        if not slot.free:
            device.until_s = slot.until_s
            return None
        device.until_s = None
        if self._board.background and (urgent := self._own(device, now_s, False) or self._stolen(device, now_s, False)):
            return urgent
        return self._own(device, now_s, True) or self._stolen(device, now_s, True)

    def _lanes(self, queue: DeviceQueue, background: bool) -> list[LaneKey]:
        """The lanes to look at: without `background`, only those background lanes that were passed over too often."""
        return [
            key
            for key, lane in queue.lanes.items()
            if background or lane.priority >= 0 or lane.passes >= self._patience.max_passes
        ]

    def _own(self, device: Device, now_s: float, background: bool, *, hungry: bool = False) -> InFlightBatch | None:
        keys = self._lanes(device.queue, background)
        suspects = [(index, self._suspect(device, part)) for index, part in enumerate(device.queue.suspects)]
        parts = [(index, part) for index, part in suspects if background or part.priority >= 0]
        candidates = [self._candidate(device, device, key, now_s) for key in keys] + [part for _, part in parts]
        idle = not device.in_flight
        choice = choose_batch(candidates, now_s=now_s, idle=idle, hungry=hungry, patience=self._patience)
        self._note(device, choice.reason, choice.until_s)
        if choice.index is None:
            return None
        if choice.index >= len(keys):
            index, _ = parts[choice.index - len(keys)]
            return self._send(device, device.queue.take_suspects(index), now_s, choice.reason, suspect=True)
        taken = device.queue.take(keys[choice.index], candidates[choice.index].size, self._patience.max_passes)
        return self._send(device, taken, now_s, choice.reason)

    def _held(self, device: Device, now_s: float, background: bool) -> InFlightBatch | None:
        return self._own(device, now_s, background, hungry=True) if device.queue.lanes else None

    def _stolen(self, device: Device, now_s: float, background: bool) -> InFlightBatch | None:
        victims: list[Victim] = []
        keys: dict[str, list[LaneKey]] = {}
        for other in self._board.devices.values():
            if other is device or not other.up or not other.queue.lanes:
                continue
            keys[other.name] = [key for key in self._lanes(other.queue, background) if device.holds(key[0])]
            free_in_s = other.free_in_s(now_s)
            victims.append(
                Victim(
                    other.name,
                    tuple(self._candidate(other, device, key, now_s) for key in keys[other.name]),
                    tuple(other.lane_seconds(key, self._costs, self._limits) for key in keys[other.name]),
                    free_in_s,
                    free_in_s + other.queued_seconds(self._costs, self._limits),
                )
            )
        theft = choose_theft(victims, now_s=now_s, own_backlog_s=device.free_in_s(now_s), patience=self._patience)
        if theft.device is None:
            why = Reason(theft.reason.code, f"{device.reason}; {theft.reason}")
            self._note(device, why, theft.until_s)
            return None
        device.reason = theft.reason
        device.steals += 1
        victim, key = self._board.devices[theft.device].queue, keys[theft.device][theft.lane]
        return self._send(device, victim.steal(key, theft.size, self._patience.max_passes), now_s, theft.reason)

    @staticmethod
    def _note(device: Device, reason: Reason, until_s: float | None) -> None:
        device.reason = reason
        if until_s is not None:
            device.until_s = until_s if device.until_s is None else min(until_s, device.until_s)

    def _candidate(self, owner: Device, runner: Device, key: LaneKey, now_s: float) -> BatchOption:
        stage, group = key
        lane = owner.queue.lanes[key]
        count, limit = len(lane), self._limits.limit(runner.name, key)
        fillable = self._board.fillable(stage, group)
        last = not fillable and 1 < count <= limit * len(self._board.devices)
        return BatchOption(
            stage=stage,
            group=group,
            count=count,
            priority=lane.priority,
            since_s=lane.since_s,
            passes=lane.passes,
            limit=limit,
            batch_s=self._costs.seconds(runner.name, key, min(count, limit)),
            fillable=fillable,
            feeds=owner is runner and self._board.feeds(stage),
            share=self._share(owner, runner, key, now_s) if last else None,
        )

    def _share(self, owner: Device, runner: Device, key: LaneKey, now_s: float) -> int:
        """The runner's part of a lane to which nothing more comes. The owner's is at least 1: nobody else may come."""
        count = len(owner.queue.lanes[key])

        def load(device: Device) -> DeviceLoad:
            queued_s = 0.0 if device is runner else device.queued_seconds(self._costs, self._limits)
            if device is owner is not runner:
                queued_s -= device.lane_seconds(key, self._costs, self._limits)
            price_s = 0.0 if device is owner else leaving_price_s(key[0], 1)
            item_s = self._costs.seconds(device.name, key, count) / count
            return DeviceLoad(device.free_in_s(now_s) + queued_s, item_s + price_s)

        up = (device for device in self._board.devices.values() if device.up and device.holds(key[0]))
        mine = share(count, load(runner), [load(device) for device in up if device is not runner])
        return max(1, mine) if owner is runner else mine

    def _suspect(self, device: Device, part: Suspects) -> BatchOption:
        stage, group = part.key
        return BatchOption(
            stage=stage,
            group=group,
            count=len(part.entries),
            priority=max(entry.task.priority for entry in part.entries),
            since_s=min(entry.since_s for entry in part.entries),
            passes=part.passes,
            limit=self._limits.limit(device.name, part.key),
            batch_s=self._costs.seconds(device.name, part.key, len(part.entries)),
            fillable=False,
            suspect=True,
        )

    def _send(
        self, device: Device, entries: tuple[Entry, ...], now_s: float, reason: Reason, *, suspect: bool = False
    ) -> InFlightBatch:
        self._batches += 1
        first, size = entries[0].task, len(entries)
        deadline_s = self._costs.deadline_s(device.name, first.key, size)
        batch = Batch(self._batches, first.stage, first.group, tuple(entry.task for entry in entries), deadline_s)
        expected_s = self._costs.seconds(device.name, first.key, size)
        sent = InFlightBatch(device.name, batch, entries, now_s, expected_s, device.generation, suspect)
        device.send(sent)
        device.until_s = None
        self.batch_sizes[first.stage][size] += 1
        self.batch_reasons[reason.code] += 1
        return sent
