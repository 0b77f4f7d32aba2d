package store

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestCommitModeIsDurable: a commit waits for the disk.
func TestCommitModeIsDurable(t *testing.T) {
	t.Parallel()
	st := newStore(t, commitStore(t))
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal"} {
		var got string
		if err := st.db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("PRAGMA %s is %q (%v), want %q", pragma, got, err, want)
		}
	}
}

// TestAcknowledgedIsStored: in commit mode a change is in the database, as it
// would be found after a power cut, when it is acknowledged.
func TestAcknowledgedIsStored(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	st := newStore(t, o)
	group := addGroup(t, st)
	id := addRecord(t, st, messageRecord(group, 0, "hello"))
	answer := addRecord(t, st, messageRecord(group, id, "answer"))
	o.Folder = copyDatabase(t, o.Folder)
	after := newStore(t, o)
	for _, want := range []Record{{ID: id, Group: group, Replies: 1}, {ID: answer, Group: group, Parent: id}} {
		got, err := after.Get(Message, want.ID)
		if err != nil || got.Group != want.Group || got.Parent != want.Parent || got.Replies != want.Replies {
			t.Errorf("message %d is %+v (%v), want %+v", want.ID, got, err, want)
		}
	}
	if next := addRecord(t, after, messageRecord(group, 0, "next")); next <= answer {
		t.Errorf("number %d was given after %d", next, answer)
	}
}

// TestBadChangeFailsAlone: of changes that share a transaction, those that
// cannot be done fail, and the others are stored.
func TestBadChangeFailsAlone(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	st := newStore(t, o)
	group := addGroup(t, st)
	before := commits(t, o.Folder)
	orphan, bad := messageRecord(group, 12345, "orphan"), Record{Kind: Message, ID: 1, Group: group}
	outcomes := putTogether(st,
		&change{rec: messageRecord(group, 0, "first")}, &change{rec: orphan}, &change{rec: messageRecord(group, 0, "second")},
		&change{verb: verbReplace, rec: bad}, &change{rec: orphan}, &change{rec: messageRecord(group, 0, "third")})
	for i, err := range outcomes {
		if wantBad := i == 1 || i == 4; wantBad != errors.Is(err, ErrNotFound) || !wantBad && err != nil && i != 3 {
			t.Errorf("change %d: %v", i, err)
		}
	}
	if n := commits(t, o.Folder) - before; n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
	list, err := st.List(group, All)
	if err != nil {
		t.Fatal(err)
	}
	defer st.EndList(list)
	page, err := st.Page(list)
	if err != nil || len(page) != 3 || list.Count != 3 {
		t.Errorf("%d messages, counted as %d (%v), want 3", len(page), list.Count, err)
	}
}

// TestGroupCommit: what comes while the disk is busy shares transactions.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	const posts = 300
	o := commitStore(t)
	st := newStore(t, o)
	group := addGroup(t, st)
	before := commits(t, o.Folder)
	beside := openBeside(t, o.Folder)
	defer beside.Close()
	beside.SetMaxOpenConns(1)
	mustExec(t, beside, "BEGIN IMMEDIATE") // the disk is busy
	var posting sync.WaitGroup
	outcomes := make(chan error, posts)
	for range posts {
		posting.Go(func() {
			r := messageRecord(group, 0, "post")
			outcomes <- st.Add(&r)
		})
	}
	for given := int64(0); given < posts; runtime.Gosched() {
		st.queue.mu.Lock()
		given = st.queue.numbers[Message]
		st.queue.mu.Unlock()
	}
	mustExec(t, beside, "ROLLBACK")
	posting.Wait()
	for range posts {
		if err := <-outcomes; err != nil {
			t.Errorf("a post failed: %v", err)
		}
	}
	if n := commits(t, o.Folder) - before; n < 1 || n > 2 {
		t.Errorf("%d transactions for %d posts, want 1 or 2", n, posts)
	}
	if n := countRows(t, o.Folder, "messages"); n != posts {
		t.Errorf("%d messages are stored, want %d", n, posts)
	}
}

// TestLargeBatch: more changes than one transaction takes are all stored, with
// numbers that a crash in between would not give again.
func TestLargeBatch(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	st := newStore(t, o)
	group := addGroup(t, st)
	before := commits(t, o.Folder)
	changes := make([]*change, 2*maxBatch+1)
	for i := range changes {
		changes[i] = &change{rec: messageRecord(group, 0, "post")}
	}
	if err := errors.Join(putTogether(st, changes...)...); err != nil {
		t.Fatal(err)
	}
	if n := commits(t, o.Folder) - before; n != 3 {
		t.Errorf("%d transactions, want 3", n)
	}
	if n := countRows(t, o.Folder, "messages"); n != len(changes) {
		t.Errorf("%d messages are stored, want %d", n, len(changes))
	}
}

// TestPeriodicMode: a change is acknowledged before it is stored, a save is due then, and
// readers see the change at once.
func TestPeriodicMode(t *testing.T) {
	t.Parallel()
	o := periodicStore(t)
	st := newStore(t, o)
	wantDue := func(want bool) {
		t.Helper()
		select {
		case <-st.Due():
			if !want {
				t.Error("a save is due, and nothing waits for one")
			}
		default:
			if want {
				t.Error("no save is due")
			}
		}
	}
	group := addGroup(t, st)
	first := addRecord(t, st, messageRecord(group, 0, "first"))
	if n := countRows(t, o.Folder, "messages"); n != 0 {
		t.Fatalf("%d messages are stored at once, want none", n)
	}
	wantDue(true)
	addRecord(t, st, messageRecord(group, 0, "another"))
	if err := st.Save(nil); err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, o.Folder, "messages"); n != 2 {
		t.Errorf("%d messages are stored by a save, want 2", n)
	}
	wantDue(false)
	second := addRecord(t, st, messageRecord(group, first, "second"))
	if r, err := st.Get(Message, second); err != nil || r.Parent != first {
		t.Errorf("a reader finds %+v (%v), want the answer that was just stored", r, err)
	}
	addRecord(t, st, messageRecord(group, first, "third"))
	list, err := st.List(group, first)
	if err != nil || list.Count != 2 {
		t.Fatalf("a list of %d messages (%v), want 2", list.Count, err)
	}
	st.EndList(list)
}

// TestSaveEnds: a save stores ends, also of what was acknowledged just before, and the
// clock; ends of what is gone change nothing.
func TestSaveEnds(t *testing.T) {
	t.Parallel()
	o := periodicStore(t)
	st := newStore(t, o)
	room := addRecord(t, st, Record{Kind: Room, Ends: 5, Head: []byte("room")})
	gone := addRecord(t, st, Record{Kind: Room, Ends: 5, Head: []byte("gone")})
	account := addRecord(t, st, Record{Kind: Account, Head: []byte("alice"), Body: []byte("body")})
	if err := st.Remove(Room, gone); err != nil {
		t.Fatal(err)
	}
	before := commits(t, o.Folder)
	if err := st.Save(Ends{{Room, room}: 77, {Room, gone}: 78, {Account, account}: 79}); err != nil {
		t.Fatal(err)
	}
	if n := commits(t, o.Folder) - before; n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
	for k, want := range map[Kind]int64{Room: 77, Account: 79} {
		var got []int64
		if err := st.Load(k, func(r Record) error { got = append(got, r.Ends); return nil }); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%ss end at %v (%v), want %d", k, got, err, want)
		}
	}
}

// TestPeriodicCrash: a crash loses at most what came after the last save, and no number
// is given again.
func TestPeriodicCrash(t *testing.T) {
	t.Parallel()
	o := periodicStore(t)
	st := newStore(t, o)
	group := addGroup(t, st)
	var saved, last, status int64
	for i := range 50 {
		last = addRecord(t, st, messageRecord(group, 0, "post"))
		status = st.NextNumber()
		if i == 29 {
			saved = last
			if err := st.Save(nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	o.Folder = copyDatabase(t, o.Folder)
	after := newStore(t, o)
	if _, err := after.Get(Message, saved); err != nil {
		t.Errorf("a message that was saved is lost: %v", err)
	}
	if _, err := after.Get(Message, last); !errors.Is(err, ErrNotFound) {
		t.Errorf("the copy was to be made before the last message was stored: %v", err)
	}
	if next := addRecord(t, after, messageRecord(group, 0, "next")); next <= last {
		t.Errorf("number %d was given after the crash; %d was given before", next, last)
	}
	if next := after.NextNumber(); next <= status {
		t.Errorf("status number %d was given after the crash; %d was given before", next, status)
	}
}

// TestStatusNumbersSetAside: many more status numbers than are set aside at a
// time, and still none is given twice after a crash.
func TestStatusNumbersSetAside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := commitStore(t)
		st := newStore(t, o)
		before := commits(t, o.Folder)
		last := int64(0)
		for range 3 {
			for range statusBlock/2 + 1 {
				n := st.NextNumber()
				if n <= last {
					t.Fatalf("%d was given after %d", n, last)
				}
				last = n
			}
			synctest.Wait()
		}
		if n := commits(t, o.Folder) - before; n != 3 {
			t.Errorf("%d transactions, want 3", n)
		}
		o.Folder = copyDatabase(t, o.Folder)
		if n := newStore(t, o).NextNumber(); n <= last {
			t.Errorf("status number %d was given after the crash; %d was given before", n, last)
		}
	})
}

// TestTooMuchUnsaved: past a bound, people wait for the savers in periodic mode
// too.
func TestTooMuchUnsaved(t *testing.T) {
	t.Parallel()
	o := periodicStore(t)
	st := newStore(t, o)
	account := Record{Kind: Account, Head: []byte("alice"), Body: []byte("new")}
	account.ID = addRecord(t, st, account)
	account.Body = []byte("changed")
	for range maxUnsaved {
		if err := st.Replace(account); err != nil {
			t.Fatal(err)
		}
	}
	if all := opened(t, o.Folder, o.Key); len(all) != 1 || string(all[0].Body) != "new" {
		t.Fatalf("%+v is stored so far, want the account as it was made", all)
	}
	account.Body = []byte("last")
	if err := st.Replace(account); err != nil {
		t.Fatal(err)
	}
	if all := opened(t, o.Folder, o.Key); len(all) != 1 || string(all[0].Body) != "last" {
		t.Errorf("%+v is stored, want the change that had to wait", all)
	}
}

// TestFullDisk: a change that finds no space fails with -2; what was
// acknowledged before is saved once there is space again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	o := periodicStore(t)
	st := newStore(t, o)
	group := addGroup(t, st)
	addRecord(t, st, messageRecord(group, 0, "first"))
	waiting := addRecord(t, st, messageRecord(group, 0, strings.Repeat("acknowledged ", 1000)))
	set := func(pragma string) {
		t.Helper()
		if _, err := st.writer.own.conn.ExecContext(t.Context(), pragma); err != nil {
			t.Fatal(err)
		}
	}
	set("PRAGMA max_page_count = 1") // as small as it is now
	if err := st.queue.put(&change{verb: verbSettle}); !isDiskFull(err) {
		t.Errorf("got %v, want a full disk", err)
	}
	if _, err := st.Get(Message, waiting); !errors.Is(err, ErrFull) {
		t.Errorf("reading what cannot be saved: %v, want -2", err)
	}
	set("PRAGMA max_page_count = 1000000")
	if r, err := st.Get(Message, waiting); err != nil || !slices.Equal(r.Body, Pack(strings.Repeat("acknowledged ", 1000))) {
		t.Errorf("what was acknowledged is %d bytes (%v) once there is space", len(r.Body), err)
	}
}

// TestEnoughToCommit: a quick disk gets half of those who come at once in a transaction,
// a slow one nearly all.
func TestEnoughToCommit(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]int{longestGather - 1: 32, longestGather: 60} {
		if got := (&writer{crowd: 64, took: took}).enough(); got != want {
			t.Errorf("of 64, with %s a transaction: %d, want %d", took, got, want)
		}
	}
}
