package store

import (
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// verb is what a change does.
type verb uint8

const (
	verbAdd verb = iota
	verbReplace
	verbSwap
	verbRemove
	verbSave   // the ends in ends, and the clock
	verbThread // a part of a thread ends
	verbPurge
	verbSettle // nothing: it is done when all before it is
)

// change is one change on its way to the database.
type change struct {
	verb   verb
	rec    Record
	was    []byte     // the body that a swap takes the place of
	purged Purged     // what a purge did
	ends   Ends       // what a save stores
	more   bool       // a part of the thread has not ended yet
	done   chan error // gets the outcome, once; nil where nobody waits
}

// finish tells whoever waits how a change went.
func (c *change) finish(err error) {
	if c.done != nil {
		c.done <- err
	}
}

// batch is what one transaction does.
type batch struct {
	changes   []*change
	numbers   [Kinds]int64 // the last number of each kind that was given, at the end of the batch
	reserved  bool         // more numbers are to be set aside than were given
	statusDue bool         // more status numbers are to be set aside
}

// changesNothing reports whether all in a batch only waits for what was before it.
func (b batch) changesNothing() bool {
	return !b.statusDue &&
		!slices.ContainsFunc(b.changes, func(c *change) bool { return c.verb != verbSettle })
}

const (
	maxBatch    = 1000  // changes in one transaction
	maxUnsaved  = 10000 // changes that wait for a saver before people have to wait for it
	numberBlock = 1000  // numbers set aside in periodic mode: a crash skips them, it never gives one twice
	statusBlock = 1 << 20
)

// queue is what waits for the writer. Numbers are given in its order.
type queue struct {
	// fixed at start
	periodic bool
	wake     chan struct{} // the writer looks at the queue
	due      chan struct{} // something acknowledged waits for a save

	mu       sync.Mutex
	changes  []*change
	numbers  [Kinds]int64 // the last one given
	setAside [Kinds]int64 // what the database has as last given
	unsaved  int          // changes that were acknowledged and are not saved
	urgent   bool         // somebody waits
	failing  bool         // the last save failed: what waits is tried again at the next one
	moreDue  bool         // status numbers must be set aside

	waiting    atomic.Int64 // bytes that are on their way to the database
	status     atomic.Int64 // the last status number given
	statusMark atomic.Int64 // past it, the database must set more aside
}

// put adds a change and waits for it where the mode says so, or must.
func (q *queue) put(c *change) error {
	q.mu.Lock()
	wait := !q.periodic || c.verb >= verbSave || q.unsaved >= maxUnsaved
	if c.verb == verbAdd {
		q.numbers[c.rec.Kind]++
		c.rec.ID = q.numbers[c.rec.Kind]
		wait = wait || c.rec.ID > q.setAside[c.rec.Kind]
	}
	if wait {
		c.done = make(chan error, 1)
	} else {
		q.unsaved++
	}
	q.changes = append(q.changes, c)
	q.waiting.Add(c.size())
	q.signal(wait)
	q.mu.Unlock()
	if !wait {
		return nil
	}
	return <-c.done
}

// signal wakes the writer now, or says that a save is due. One signal is enough for all
// that waits. q.mu is held.
func (q *queue) signal(now bool) {
	to := q.due
	if now {
		to, q.urgent = q.wake, true
	}
	select {
	case to <- struct{}{}:
	default:
	}
}

// hurry has all that waits written now: the writer is about to look at the queue.
func (q *queue) hurry() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.urgent = true
}

// giveUp tells how much will never be saved: the writer looks at the queue no more.
func (q *queue) giveUp() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.changes)
}

// settle waits until everything that was acknowledged is in the database, so
// that readers see it. While it cannot be saved, they see what is there.
func (q *queue) settle() {
	q.mu.Lock()
	wait := q.unsaved > 0
	q.mu.Unlock()
	if wait {
		_ = q.put(&change{verb: verbSettle}) // the writer logs why
	}
}

// notThere is the answer where a record is not in the database: that it does not
// exist, or that nobody can tell while what was acknowledged cannot be saved.
func (q *queue) notThere() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failing && q.unsaved > 0 {
		return ErrFull
	}
	return ErrNotFound
}

// nextStatus is a status number that was never given before. Long before those
// set aside are used up it has the writer set more aside.
func (q *queue) nextStatus() int64 {
	n := q.status.Add(1)
	if n > q.statusMark.Load() {
		q.mu.Lock()
		q.statusMark.Store(math.MaxInt64) // once is enough
		q.moreDue = true
		q.signal(true)
		q.mu.Unlock()
	}
	return n
}

// next takes what the writer is to do now; false: nothing.
func (q *queue) next() (batch, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waits := len(q.changes) > 0 || q.moreDue
	if !q.urgent || !waits {
		q.urgent = false
		return batch{}, false
	}
	b := batch{changes: q.changes, numbers: q.numbers, reserved: q.periodic, statusDue: q.moreDue}
	q.changes, q.moreDue = nil, false
	if len(b.changes) > maxBatch {
		q.changes = b.changes[maxBatch:]
		b.changes = b.changes[:maxBatch:maxBatch]
		b.numbers = q.numbersAfter()
	}
	if q.urgent = len(q.changes) > 0; !q.urgent {
		select { // nothing waits for a save any more
		case <-q.due:
		default:
		}
	}
	return b, true
}

// numbersAfter is the last numbers given before what still waits. q.mu is held.
func (q *queue) numbersAfter() [Kinds]int64 {
	last := q.numbers
	for _, c := range q.changes {
		if c.verb == verbAdd {
			last[c.rec.Kind] = min(last[c.rec.Kind], c.rec.ID-1)
		}
	}
	return last
}

// saved notes that a batch is in the database, with what it set aside.
func (q *queue) saved(b batch, setAside [Kinds]int64, statusMark int64) {
	q.mu.Lock()
	q.setAside, q.failing = setAside, false
	for _, c := range b.changes {
		if c.done == nil {
			q.unsaved--
		}
	}
	q.mu.Unlock()
	q.statusMark.Store(statusMark)
}

// length is how many changes wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.changes)
}

// forget counts off an acknowledged change that is lost.
func (q *queue) forget() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unsaved--
}

// giveBack puts what was acknowledged, but could not be saved, in front of the
// queue again, for the next save. It reports whether this is the
// first failure in a row, which is worth a line in the log.
func (q *queue) giveBack(b batch, err error) (first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var keep []*change
	for _, c := range b.changes {
		if c.done == nil {
			keep = append(keep, c)
		}
	}
	q.changes = append(keep, q.changes...)
	q.moreDue = true
	q.refuseWaiting(err)
	first, q.failing = !q.failing, true
	q.urgent = false
	if q.unsaved > 0 {
		q.signal(false)
	}
	return first
}

// refuseWaiting tells everyone behind a failed batch that they cannot be served
// now: only what was acknowledged stays. q.mu is held.
func (q *queue) refuseWaiting(err error) {
	q.changes = slices.DeleteFunc(q.changes, func(c *change) bool {
		if c.done == nil {
			return false
		}
		q.waiting.Add(-c.size())
		c.finish(err)
		return true
	})
}

func (st *SQLite) Add(r *Record) error {
	c := &change{verb: verbAdd, rec: *r}
	err := st.queue.put(c)
	r.ID = c.rec.ID
	return explain("storing a "+r.Kind.String(), err)
}

func (st *SQLite) Replace(r Record) error {
	return explain("storing a "+r.Kind.String(), st.queue.put(&change{verb: verbReplace, rec: r}))
}

func (st *SQLite) Swap(r Record, was []byte) error {
	return explain("storing a "+r.Kind.String(), st.queue.put(&change{verb: verbSwap, rec: r, was: was}))
}

func (st *SQLite) Remove(k Kind, id int64) error {
	c := &change{verb: verbRemove, rec: Record{Kind: k, ID: id}}
	return explain("deleting a "+k.String(), st.queue.put(c))
}

func (st *SQLite) Save(ends Ends) error {
	return explain("saving what changed", st.queue.put(&change{verb: verbSave, ends: ends}))
}

func (st *SQLite) EndThread(group, id int64) error {
	for first := true; ; first = false {
		c := &change{verb: verbThread, rec: Record{Kind: Message, ID: id, Group: group}}
		err := st.queue.put(c)
		if !first && errors.Is(err, ErrNotFound) {
			return nil // the last piece was full, and the thread no longer than that
		}
		if err != nil || !c.more {
			return explain("deleting a message", err)
		}
	}
}

func (st *SQLite) Due() <-chan struct{} { return st.queue.due }

// Heartbeat's own outcome does not matter: that there is one does.
func (st *SQLite) Heartbeat() { _ = st.queue.put(&change{verb: verbSettle}) }

func (st *SQLite) NextNumber() int64 { return st.queue.nextStatus() }

func (st *SQLite) Purge() (Purged, error) {
	c := &change{verb: verbPurge}
	err := st.queue.put(c)
	return c.purged, explain("deleting old messages", err)
}
