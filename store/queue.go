package store

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// verb is what a change does.
type verb uint8

const (
	verbAdd verb = iota
	verbReplace
	verbSwap
	verbRemove
	verbPurge
	verbSettle // nothing: it is done when all before it is
)

// change is one change on its way to the database.
type change struct {
	verb   verb
	rec    Record
	was    []byte     // the body that a swap takes the place of
	purged Purged     // what a purge did
	done   chan error // gets the outcome, once; nil where nobody waits
}

// finish tells whoever waits how a change went.
func (c *change) finish(err error) {
	if c.done != nil {
		c.done <- err
	}
}

// touchKey names a room or group whose end changed.
type touchKey struct {
	kind Kind
	id   int64
}

// batch is what one transaction does.
type batch struct {
	changes   []*change
	touched   map[touchKey]int64
	numbers   [Kinds]int64 // the last number of each kind that was given, at the end of the batch
	reserved  bool         // more numbers are to be set aside than were given
	statusDue bool         // more status numbers are to be set aside
}

// changesNothing tells whether all in a batch only waits for what was before it.
func (b batch) changesNothing() bool {
	return !b.statusDue && len(b.touched) == 0 &&
		!slices.ContainsFunc(b.changes, func(c *change) bool { return c.verb != verbSettle })
}

const (
	maxBatch    = 1000  // changes in one transaction
	maxUnsaved  = 10000 // changes that wait for a saver before people have to wait for it
	numberBlock = 1000  // numbers set aside in periodic mode: a crash skips them, it never gives one twice
	statusBlock = 1 << 20

	longestRetry = 5 * time.Second // until what could not be saved is tried again
)

// queue is what waits for the writer. Numbers are given in its order.
type queue struct {
	// fixed at start
	periodic bool
	every    time.Duration
	wake     chan struct{} // the writer looks at the queue

	mu       sync.Mutex
	changes  []*change
	touched  map[touchKey]int64
	numbers  [Kinds]int64 // the last one given
	setAside [Kinds]int64 // what the database has as last given
	unsaved  int          // changes that were acknowledged and are not saved
	urgent   bool         // somebody waits
	timer    *time.Timer  // runs while something waits for the savers; nil: nothing does
	failing  bool         // the last save failed: what waits is tried again at the savers' pace
	moreDue  bool         // status numbers must be set aside

	status     atomic.Int64 // the last status number given
	statusMark atomic.Int64 // past it, the database must set more aside
}

// put adds a change and waits for it where the mode says so, or must.
func (q *queue) put(c *change) error {
	q.mu.Lock()
	wait := !q.periodic || c.verb >= verbPurge || q.unsaved >= maxUnsaved
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
	q.signal(wait)
	q.mu.Unlock()
	if !wait {
		return nil
	}
	return <-c.done
}

// signal wakes the writer now, or has the savers' timer do it. q.mu is held.
func (q *queue) signal(now bool) {
	if now {
		q.urgent = true
		q.ring()
	} else if q.timer == nil {
		q.timer = time.AfterFunc(q.every, q.save)
	}
}

// ring tells the writer to look; one ring is enough for all that waits.
func (q *queue) ring() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// save is the savers' turn.
func (q *queue) save() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.timer, q.urgent = nil, true
	q.ring()
}

// hurry has all that waits written now: the writer is about to look at the queue.
func (q *queue) hurry() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.urgent = true
	q.stopTimer()
}

// giveUp tells how much will never be saved: the writer looks at the queue no more.
func (q *queue) giveUp() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopTimer()
	return len(q.changes) + len(q.touched)
}

// stopTimer ends the savers' turns. q.mu is held.
func (q *queue) stopTimer() {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
}

// touch notes an end that the savers store.
func (q *queue) touch(k Kind, id int64, ends int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.touched == nil {
		q.touched = map[touchKey]int64{}
	}
	q.touched[touchKey{k, id}] = ends
	q.signal(false)
}

// keepTime has the savers store the state, and the clock with it.
func (q *queue) keepTime() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.moreDue = true
	q.signal(false)
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
// set aside are used up it has the savers set more aside.
func (q *queue) nextStatus() int64 {
	n := q.status.Add(1)
	if n > q.statusMark.Load() {
		q.mu.Lock()
		q.statusMark.Store(math.MaxInt64) // once is enough
		q.moreDue = true
		q.signal(false)
		q.mu.Unlock()
	}
	return n
}

// next takes what the writer is to do now; false: nothing.
func (q *queue) next() (batch, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waits := len(q.changes) > 0 || len(q.touched) > 0 || q.moreDue
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
	} else { // ends come after the places whose ends they are
		b.touched, q.touched = q.touched, nil
	}
	q.urgent = len(q.changes) > 0
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
// queue again; the savers try again at their pace. It tells whether this is the
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
	if q.touched == nil {
		q.touched = map[touchKey]int64{}
	}
	for key, ends := range b.touched {
		if _, newer := q.touched[key]; !newer {
			q.touched[key] = ends
		}
	}
	q.moreDue = true
	q.refuseWaiting(err)
	first, q.failing = !q.failing, true
	q.urgent = false
	if q.timer == nil {
		q.timer = time.AfterFunc(min(q.every, longestRetry), q.save)
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

func (st *SQLite) Touch(k Kind, id int64, ends int64) { st.queue.touch(k, id, ends) }

func (st *SQLite) KeepTime() { st.queue.keepTime() }

// Heartbeat's own outcome does not matter: that there is one does.
func (st *SQLite) Heartbeat() { _ = st.queue.put(&change{verb: verbSettle}) }

func (st *SQLite) NextNumber() int64 { return st.queue.nextStatus() }

func (st *SQLite) Purge() (Purged, error) {
	c := &change{verb: verbPurge}
	err := st.queue.put(c)
	return c.purged, explain("deleting old messages", err)
}
