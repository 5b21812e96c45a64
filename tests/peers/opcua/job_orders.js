// The job orders of one machine: OPC 10031-4 (ISA-95 Job Control) 2.00, section 6.2.1, figure 5 and annex B.2.
// No OPC UA in here: what the methods do to the list, and a machine that carries out one block after another.

/** State numbers of ISA95JobOrderReceiverObjectType. */
export const State = {
  NotAllowedToStart: 1,
  AllowedToStart: 2,
  Running: 3,
  Interrupted: 4,
  Ended: 5,
  Aborted: 6,
};

/** Bits of ReturnStatus, table 95. */
export const Status = {
  NoError: 1n << 0n,
  UnknownJobOrderID: 1n << 1n,
  InvalidJobOrderStatus: 1n << 3n,
  UnableToAccept: 1n << 4n,
  InvalidRequest: 1n << 32n,
};

/** JobResult of OPC 40001-3, section 9.2. */
export const Result = { Unknown: 0, Successful: 1, Unsuccessful: 2 };

const LOADED = { machine: "NotAllowedToStartSubstates", text: "Loaded", number: 3 };
const READY = { machine: "AllowedToStartSubstates", text: "Ready", number: 2 };
const HELD = { machine: "InterruptedSubstates", text: "Held", number: 1 };
const SUSPENDED = { machine: "InterruptedSubstates", text: "Suspended", number: 2 };
const COMPLETED = { machine: "EndedSubstates", text: "Completed", number: 1 };
const CLOSED = { machine: "EndedSubstates", text: "Closed", number: 2 };

/** What a request on an order that is carried out leads to, and from which states it is legal. */
const LEADS_TO = {
  Pause: { from: [State.Running], to: State.Interrupted, substate: HELD },
  Resume: { from: [State.Interrupted], to: State.Running, substate: null },
  Stop: { from: [State.Running, State.Interrupted], to: State.Ended, substate: CLOSED },
  Abort: {
    from: [State.NotAllowedToStart, State.AllowedToStart, State.Running, State.Interrupted],
    to: State.Aborted,
    substate: null,
  },
};

export class JobOrders {
  /**
   * @param programOf (order) -> lines, or null if there is no such program
   * @param changed (entry or null) called whenever something that clients may see has changed
   */
  constructor({ programOf, changed, max = 10, settleMs = 100 }) {
    this.entries = [];
    this.max = max;
    this.settleMs = settleMs;
    this.automatic = true;
    this.alarm = false;
    this.blocksPerSecond = 100;
    this.lastCarriedOut = [];
    this.acts = 0;
    this.starts = {};
    this._programOf = programOf;
    this._changed = changed;
    this._credit = 0;
    this._at = null;
  }

  find(id) {
    return this.entries.find((entry) => entry.id === id);
  }

  get current() {
    return this.entries.find((entry) => entry.state === State.Running || entry.state === State.Interrupted);
  }

  call(method, argument) {
    switch (method) {
      case "Store":
        return this._store(argument, State.NotAllowedToStart);
      case "StoreAndStart":
        return this._store(argument, State.AllowedToStart);
      case "Update":
        return this._update(argument);
    }
    const entry = this.find(argument);
    if (!entry) return Status.UnknownJobOrderID;
    switch (method) {
      case "Start":
        return this._move(entry, [State.NotAllowedToStart], State.AllowedToStart, READY);
      case "RevokeStart":
        return this._move(entry, [State.AllowedToStart], State.NotAllowedToStart, LOADED);
      case "Cancel":
        return this._remove(entry, [State.NotAllowedToStart, State.AllowedToStart]);
      case "Clear":
        return this._remove(entry, [State.Ended, State.Aborted]);
      default:
        return this._request(entry, LEADS_TO[method]);
    }
  }

  /** The machine lives: `now` in milliseconds of a clock that only goes forward. */
  tick(now) {
    const passed = this._at === null ? 0 : now - this._at;
    this._at = now;
    this._settle(now);
    const running = this.current;
    if (running?.state === State.Running) this._carryOut(running, passed);
    if (!this.current) this._begin();
  }

  /** As after a power cut at the controller: the list and its results are gone, and nothing moves any more. */
  loseState() {
    this.entries = [];
    this._changed(null);
  }

  /** As new. */
  reset() {
    Object.assign(this, { automatic: true, alarm: false, lastCarriedOut: [], acts: 0, starts: {} });
    this.loseState();
  }

  /** A fault of the machine in mid-program: 'abort', 'suspend' (goes on by Resume), or 'none'. */
  raiseAlarm(effect) {
    this.alarm = effect !== "none";
    const entry = this.current;
    if (!entry || effect === "none") return;
    entry.pending = null;
    if (effect === "suspend") this._become(entry, State.Interrupted, SUSPENDED);
    else this._become(entry, State.Aborted, null);
  }

  _store(order, state) {
    if (!order?.jobOrderID) return Status.InvalidRequest;
    if (this.find(order.jobOrderID) || this.entries.length >= this.max) return Status.UnableToAccept;
    const lines = this._programOf(order);
    if (lines === null) return Status.UnableToAccept;
    const entry = { id: order.jobOrderID, order, lines, done: 0, started: null, ended: null, pending: null };
    this.entries.push(entry);
    this._become(entry, state, state === State.AllowedToStart ? READY : LOADED);
    return Status.NoError;
  }

  _update(order) {
    const entry = this.find(order?.jobOrderID);
    if (!entry) return Status.UnknownJobOrderID;
    if (entry.state !== State.NotAllowedToStart && entry.state !== State.AllowedToStart) {
      return Status.InvalidJobOrderStatus;
    }
    const lines = this._programOf(order);
    if (lines === null) return Status.UnableToAccept;
    Object.assign(entry, { order, lines });
    this._changed(entry);
    return Status.NoError;
  }

  _move(entry, from, to, substate) {
    if (!from.includes(entry.state)) return Status.InvalidJobOrderStatus;
    this._become(entry, to, substate);
    return Status.NoError;
  }

  _remove(entry, from) {
    if (!from.includes(entry.state)) return Status.InvalidJobOrderStatus;
    this.entries = this.entries.filter((other) => other !== entry);
    this._changed(null);
    return Status.NoError;
  }

  /** What moves does not stop at once: the method says yes, the state follows. An abort overtakes all else. */
  _request(entry, { from, to, substate }) {
    if (!from.includes(entry.state)) return Status.InvalidJobOrderStatus;
    if (entry.pending && to !== State.Aborted) return Status.InvalidJobOrderStatus;
    if (entry.state === State.Running) {
      entry.pending = { due: (this._at ?? 0) + (to === State.Aborted ? 0 : this.settleMs), to, substate };
    } else if (to !== State.Running || (this.automatic && !this.alarm)) {
      this._become(entry, to, substate);
    } else {
      return Status.InvalidJobOrderStatus;
    }
    return Status.NoError;
  }

  _settle(now) {
    for (const entry of [...this.entries]) {
      if (entry.pending && now >= entry.pending.due) {
        const { to, substate } = entry.pending;
        entry.pending = null;
        if (entry.state === State.Running) this._become(entry, to, substate);
      }
    }
  }

  /** The machine itself begins: the order of highest priority that may start, if it is in automatic and well. */
  _begin() {
    if (!this.automatic || this.alarm) return;
    const waiting = this.entries.filter((entry) => entry.state === State.AllowedToStart);
    waiting.sort((a, b) => (b.order.priority ?? 0) - (a.order.priority ?? 0));
    const [entry] = waiting;
    if (!entry) return;
    entry.started = new Date();
    this.starts[entry.id] = (this.starts[entry.id] ?? 0) + 1;
    this.acts += 1;
    this.lastCarriedOut = [];
    this._credit = 0;
    this._become(entry, State.Running, null);
  }

  _carryOut(entry, passedMs) {
    this._credit += (passedMs / 1000) * this.blocksPerSecond;
    let any = false;
    while (this._credit >= 1 && entry.done < entry.lines.length) {
      this._credit -= 1;
      this.lastCarriedOut.push(entry.lines[entry.done]);
      entry.done += 1;
      this.acts += 1;
      any = true;
    }
    if (entry.done >= entry.lines.length) {
      entry.pending = null;
      this._become(entry, State.Ended, COMPLETED);
    } else if (any) {
      this._changed(null);
    }
  }

  _become(entry, state, substate) {
    entry.state = state;
    entry.substate = substate;
    if (state === State.Ended || state === State.Aborted) {
      entry.ended = new Date();
      entry.result = substate === COMPLETED ? Result.Successful : Result.Unsuccessful;
    }
    this._changed(entry);
  }
}
