package store

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// thread stores a message with so many answers, some of them to answers, and returns it.
func thread(t *testing.T, st *SQLite, group int64, answers int) (top int64) {
	t.Helper()
	top = addRecord(t, st, messageRecord(group, 0, "top"))
	parent := top
	for i := range answers {
		id := addRecord(t, st, messageRecord(group, parent, fmt.Sprintf("answer %d", i)))
		if i%100 == 0 {
			parent = id
		}
	}
	return top
}

// TestEndThread: a message ends with all that answers it, more than go into one
// transaction too; lists that were begun before keep it, and a purge deletes it then.
func TestEndThread(t *testing.T) {
	t.Parallel()
	o := periodicStore(t)
	lost := 0
	o.Lost = func(Record) { lost++ }
	st := newStore(t, o)
	group := addRecord(t, st, Record{Kind: Group, Ends: forEver, Head: Pack("talk", "talk", "", "anon", "0")})
	other := thread(t, st, group, 3)
	top := thread(t, st, group, 2*purgeSize+7)
	before, err := st.List(group, All)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.EndThread(group, top); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"again": st.EndThread(group, top), "another group": st.EndThread(group+1, other), "none": st.EndThread(group, 99999)} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
	after, err := st.List(group, All)
	if err != nil || after.Count != 4 {
		t.Errorf("a list has %d messages (%v), want the 4 of the other thread", after.Count, err)
	}
	st.EndList(after)
	var listed int64
	for !before.Done {
		page, err := st.Page(before)
		if err != nil {
			t.Fatal(err)
		}
		listed += int64(len(page))
	}
	if want := int64(4 + 1 + 2*purgeSize + 7); listed != before.Count || listed != want {
		t.Errorf("the list that was begun before has %d of %d messages, want %d", listed, before.Count, want)
	}
	late := messageRecord(group, top, "late")
	if err := errors.Join(st.Add(&late), st.Save(nil)); err != nil || lost != 1 {
		t.Errorf("an answer to what has ended: %v, %d lost, want 1", err, lost)
	}
	st.EndList(before)
	gone := 0
	for more := true; more; {
		p, err := st.Purge()
		if err != nil {
			t.Fatal(err)
		}
		gone, more = gone+len(p.Gone), p.More
	}
	if want := 1 + 2*purgeSize + 7; gone != want {
		t.Errorf("%d messages were deleted, want %d", gone, want)
	}
	if n := countRows(t, o.Folder, "messages"); n != 4 {
		t.Errorf("%d messages are left, want 4", n)
	}
	if err := Check(t.Context(), &bytes.Buffer{}, o.Folder, o.Key); err != nil {
		t.Error(err)
	}
}

// TestEndThreadCounts: the message that the deleted one answered has a reply less, and
// what is ended but not deleted yet opens.
func TestEndThreadCounts(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	st := newStore(t, o)
	group := addRecord(t, st, Record{Kind: Group, Ends: forEver, Head: Pack("talk", "talk", "", "anon", "0")})
	top := addRecord(t, st, messageRecord(group, 0, "top"))
	first := addRecord(t, st, messageRecord(group, top, "first"))
	addRecord(t, st, messageRecord(group, top, "second"))
	addRecord(t, st, messageRecord(group, first, "to the first"))
	if err := st.EndThread(group, first); err != nil {
		t.Fatal(err)
	}
	if r, err := st.Get(Message, top); err != nil || r.Replies != 1 {
		t.Errorf("the message has %d replies (%v), want 1", r.Replies, err)
	}
	if r, err := st.Get(Message, first); err != nil || r.Ends > st.clock.Now() || !bytes.Equal(r.Body, Pack("first")) {
		t.Errorf("the deleted one is %+v (%v), want that it has ended, and opens", r, err)
	}
}
