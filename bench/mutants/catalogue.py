"""The planted bugs: each is something a hurried change could do, in one or two places."""

from __future__ import annotations

from bench.mutants.bug import Mutant
from bench.mutants.bug import mutant as _mutant
from bench.mutants.house import HOUSE

APPLY = "server.ordering.apply"
INGEST = "server.transport.ingest"
WRITER = "server.storage.writer"
DATABASE = "server.storage.database"
PRICING = "server.ordering.pricing"
STOCK = "server.ordering.stock"
REQUESTS = "server.ordering.requests"
OUTBOX = "terminal.outbox"
SENDER = "terminal.sender"
RATE_LIMIT_LINES = (
    "        if status == RATE_LIMITED:\n            self._on_rate_limit(op_id, arg)\n            return\n"
)


ORDER_PATH: tuple[Mutant, ...] = (
    # ---------------------------------------------------------------- promises about commits
    _mutant(
        "ack_before_commit",
        "the PUBACK leaves when the op enters the queue",
        INGEST,
        "                self._writer.submit(job, lambda outcome: "
        "self._settle(device, session, outcome, answer, done))\n",
        "                done(True)\n"
        "                self._writer.submit(job, lambda outcome: "
        "self._settle(device, session, outcome, answer, lambda handled: None))\n",
    ),
    _mutant(
        "reply_before_commit",
        "callers learn their outcome before COMMIT",
        WRITER,
        '            connection.execute("COMMIT")\n',
        "            for entry in batch:\n"
        "                entry.callback(entry.outcome)\n"
        "                entry.callback = lambda outcome: None\n"
        '            connection.execute("COMMIT")\n',
    ),
    _mutant(
        "commit_failure_acknowledged",
        "a batch that could not be stored is acknowledged",
        INGEST,
        "exc_info=outcome.error)\n            done(False)\n",
        "exc_info=outcome.error)\n            done(True)\n",
    ),
    _mutant(
        "failed_batch_answered",
        "an error at COMMIT is swallowed and the prepared outcomes are delivered",
        WRITER,
        "            self._abandon(connection, batch, error)\n",
        '            if connection.in_transaction:\n                connection.execute("ROLLBACK")\n',
    ),
    _mutant(
        "synchronous_normal",
        "commits are not synced one by one",
        DATABASE,
        'connection.execute("PRAGMA synchronous=FULL")',
        'connection.execute("PRAGMA synchronous=NORMAL")',
    ),
    _mutant(
        "fsync_left_out",
        "nothing is ever synced",
        DATABASE,
        'connection.execute("PRAGMA synchronous=FULL")',
        'connection.execute("PRAGMA synchronous=OFF")',
    ),
    _mutant(
        "journal_in_memory",
        "the rollback journal is kept in memory",
        DATABASE,
        'connection.execute("PRAGMA journal_mode=WAL")',
        'connection.execute("PRAGMA journal_mode=MEMORY")',
    ),
    # ---------------------------------------------------------------- exactly once
    _mutant(
        "dedupe_after_effect",
        "stock is taken before the stored answer is looked for",
        APPLY,
        "        if stored is not None:\n            return self._repeat(stored)\n",
        "        if stored is not None:\n"
        "            if self.op.type == OpType.ORDER:\n"
        "                stock.take(transaction, site, snapshot.counted, stock.portions(self.op.lines))\n"
        "            return self._repeat(stored)\n",
    ),
    _mutant(
        "no_dedupe",
        "a repeated op is judged again",
        APPLY,
        "        if stored is not None:\n",
        "        if stored is not None and stored[1] != 0:\n",
    ),
    _mutant(
        "refusals_are_not_final",
        "an op that was not committed is judged again when it is repeated",
        APPLY,
        "        if stored is not None:\n            return self._repeat(stored)\n",
        "        if stored is not None and stored[1] != 0:\n"
        "            transaction.execute(\n"
        '                "DELETE FROM answer WHERE site = ? AND device = ? AND op_id = ?",\n'
        "                (site, self.device, self.op.op_id),\n"
        "            )\n"
        "            stored = None\n"
        "        if stored is not None:\n            return self._repeat(stored)\n",
    ),
    _mutant(
        "another_body_accepted",
        "the same op_id with another body gets the first one's answer",
        APPLY,
        "        if op_hash != self.op_hash:\n",
        "        if False:\n",
        check="body_of_an_op_is_bound",
    ),
    _mutant(
        "reply_not_bound_to_op",
        "the terminal takes any reply for its oldest op",
        SENDER,
        RATE_LIMIT_LINES,
        RATE_LIMIT_LINES + "        for op_id, _ in self._outbox.pending():\n            break\n",
    ),
    _mutant(
        "rate_limit_taken_for_final",
        "the terminal drops an op that was only asked to wait",
        SENDER,
        RATE_LIMIT_LINES,
        "",
    ),
    _mutant(
        "done_when_sent",
        "an op leaves the outbox when it is sent",
        SENDER,
        "            waiting.append(op_id)\n            self._due.append(due)\n",
        "            waiting.append(op_id)\n            self._due.append(due)\n"
        "            self._outbox.done(op_id, 0)\n",
    ),
    _mutant(
        "outbox_forgets_at_boot",
        "pending ops are not recovered after a power cut",
        OUTBOX,
        "        self._ring.recover(self._visit)\n",
        "        self._ring.recover(lambda kind, payload, location: None)\n",
    ),
    _mutant(
        "outbox_in_memory",
        "an op is kept in RAM until the next one comes",
        OUTBOX,
        "        location = ring.put(_OP, op_id, op, n)\n",
        "        self._held = getattr(self, '_held', None)\n"
        "        if self._held is not None:\n"
        "            if ring.free < record_bytes(len(self._held[1]) + _ID):\n"
        "                self._make_room(record_bytes(len(self._held[1]) + _ID))\n"
        "            ring.put(_OP, self._held[0], self._held[1], len(self._held[1]) + _ID)\n"
        "        self._held = (op_id, bytes(op))\n"
        "        location = 0\n",
    ),
    _mutant(
        "carry_forgotten",
        "pending ops of a reclaimed journal sector are not carried along",
        OUTBOX,
        "                if value >> 23 == oldest:\n",
        "                if value >> 23 == oldest and False:\n",
        check="journal_keeps_what_is_pending",
    ),
    _mutant(
        "torn_record_accepted",
        "the journal's CRC is not looked at",
        "terminal.flashlog",
        "        return n if crc == crc32(view[:crc_at]) else -1\n",
        "        return n if n and crc != -1 else -1\n",
        check="torn_records_are_not_seen",
    ),
    # ---------------------------------------------------------------- money and stock
    _mutant(
        "float_money",
        "a line is computed in units of currency as floating point",
        PRICING,
        "        amount = unit * line.quantity\n",
        "        amount = int(unit / 100 * line.quantity * 100)\n",
    ),
    _mutant(
        "rounding_per_bill",
        "tax is rounded once per bill where the menu says per line",
        PRICING,
        "prices.rounding == ROUND_PER_BILL",
        "prices.rounding != ROUND_PER_BILL",
    ),
    _mutant(
        "tax_rounded_down",
        "tax is cut off instead of rounded half up",
        PRICING,
        "    return (2 * gross_minor * basis_points + divisor) // (2 * divisor)\n",
        "    return gross_minor * basis_points // divisor\n",
    ),
    _mutant(
        "price_not_compared",
        "an order is committed at a price its guest has not seen",
        APPLY,
        "    if order.total_minor != op.total_minor:\n",
        "    if False:\n",
    ),
    _mutant(
        "stale_menu",
        "a published menu is not noticed while the server runs",
        WRITER,
        "        if revision != self._revision:\n",
        "        if self._revision < 0:\n",
    ),
    _mutant(
        "stock_check_outside_transaction",
        "stock is compared with a value read once",
        STOCK,
        "            if row is not None and row[0] < more:\n                return item\n",
        "            seen = take.__dict__.setdefault(item, row[0] if row is not None else None)\n"
        "            if seen is not None and seen < more:\n                return item\n",
    ),
    _mutant(
        "stock_not_taken_for_second_line",
        "of two lines with the same item only one is counted",
        STOCK,
        "        wanted[line.item] += line.quantity\n",
        "        wanted[line.item] = line.quantity\n",
    ),
    _mutant(
        "change_keeps_the_old_stock",
        "a changed order takes its new pieces and does not give back the old ones",
        REQUESTS,
        "    more.subtract(target.pieces)\n",
        "",
    ),
    _mutant(
        "cancel_keeps_the_bill",
        "a cancelled order stays on the bill",
        REQUESTS,
        "        delta_minor=-target.total_minor,\n",
        "        delta_minor=0,\n",
    ),
    _mutant(
        "change_loses_a_line",
        "the last of several new lines is lost",
        REQUESTS,
        "target.order_number, order.lines, first=target.next_line",
        "target.order_number, order.lines[: max(1, len(order.lines) - 1)], first=target.next_line",
    ),
    _mutant(
        "bill_forgets_an_order",
        "the seating's total is replaced instead of added to",
        APPLY,
        "SET chain = ?, total_minor = total_minor + ?",
        "SET chain = ?, total_minor = 0 + ?",
    ),
    _mutant(
        "chain_skips_refusals",
        "only committed answers go into the chain",
        APPLY,
        "        head = next_chain(seating.head, self.op_hash, verdict.status, verdict.total_minor)\n",
        "        head = next_chain(seating.head, self.op_hash, verdict.status, verdict.total_minor)"
        " if ordered else seating.head\n",
    ),
    _mutant(
        "savepoint_left_out",
        "an op that fails takes its half-done work into the commit",
        WRITER,
        '            connection.execute("ROLLBACK TO job")\n',
        "            pass\n",
        check="failed_job_leaves_nothing",
    ),
    # ---------------------------------------------------------------- sessions and frames
    _mutant(
        "window_before_mac",
        "the replay window moves before the MAC is verified",
        "server.devices.verify",
        "        verify_mac0(parsed, row.k_d2s, session.op_prefix)\n"
        "        if self._clock.unix_time() >= row.expires_at:\n"
        '            raise Refusal(RefusalCode.SESSION_EXPIRED, "the session is over")\n'
        "        message = OpMessage.from_payload(parsed.payload)\n",
        "        message = OpMessage.from_payload(parsed.payload)\n"
        "        session.window.mark(message.seq)\n"
        "        verify_mac0(parsed, row.k_d2s, session.op_prefix)\n"
        "        if self._clock.unix_time() >= row.expires_at:\n"
        '            raise Refusal(RefusalCode.SESSION_EXPIRED, "the session is over")\n',
        check="forged_frames_move_no_window",
    ),
    _mutant(
        "op_mac_not_verified",
        "the server believes an op without its MAC",
        "server.devices.verify",
        "        verify_mac0(parsed, row.k_d2s, session.op_prefix)\n        if self._clock",
        "        if self._clock",
    ),
    _mutant(
        "reply_mac_not_verified",
        "the terminal believes a reply without its MAC",
        "terminal.wire.cose",
        "        if not same_tag(frame, end + 2, self.tag(frame[start:end])):\n",
        "        if False:\n",
        check="forged_replies_are_refused",
    ),
    _mutant(
        "handshake_reused_after_reboot",
        "the handshake counter is not stored before it is used",
        "terminal.counters",
        "        self._put_u32(_HANDSHAKE, self.handshake() + 1)\n        return self.handshake()\n",
        "        self._number = getattr(self, '_number', 0) + 1\n        return self._number\n",
        check="handshake_numbers_are_used_once",
    ),
    _mutant(
        "beacon_number_of_another_server",
        "a beacon is published under a number that another server of the site was faster with",
        "server.devices.beacons",
        "            if others is None:\n                break\n            self._recent = _newest(others)\n",
        "            break\n",
        check="beacon_numbers_are_used_once",
    ),
    _mutant(
        "beacon_number_not_kept",
        "a terminal forgets with its power which beacon was the newest",
        "terminal.session",
        "            self._counters.store_beacon(beacon.epoch, beacon.counter)\n",
        "            pass\n",
        check="an_old_beacon_stays_old",
    ),
    _mutant(
        "session_not_stored",
        "a session is used although it was never stored",
        "server.transport.handshakes",
        "        await self._writer.run(StoreSession(result, row))\n",
        "",
    ),
    _mutant(
        "op_ids_reused_after_reboot",
        "op ids begin at the same number after every power-on",
        OUTBOX,
        '        return self._boot + self._running.to_bytes(4, "big") + random(4)\n',
        '        return b"boot" + self._running.to_bytes(4, "big") + b"same"\n',
    ),
    # ---------------------------------------------------------------- the house
    _mutant(
        "overlap_off_by_one_minute",
        "bookings may overlap by up to a minute",
        "server.domain.bookings",
        "    return start_at < other_end and other_start < end_at\n",
        "    return start_at < other_end - 60 and other_start < end_at - 60\n",
        check="bookings_share_no_moment",
    ),
)

MUTANTS = ORDER_PATH + HOUSE
__all__ = ["MUTANTS", "Mutant"]
