package store

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
	"testing"
)

// storeWithUnsaved opens a store in periodic mode that has two acknowledged messages
// to save, and finds no space for them until the disk is given some.
func storeWithUnsaved(t *testing.T) (st *SQLite, folder string, makeSpace func()) {
	t.Helper()
	o := periodicStore(t)
	st, err := OpenSQLite(o)
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	conn := st.writer.own.conn
	set := func(pragma string) {
		t.Helper()
		if _, err := conn.ExecContext(context.Background(), pragma); err != nil {
			t.Error(err)
		}
	}
	group := addGroup(t, st)
	set("PRAGMA max_page_count = 1") // as small as it is now
	addRecord(t, st, messageRecord(group, 0, "first"))
	addRecord(t, st, messageRecord(group, 0, strings.Repeat("acknowledged ", 1000)))
	return st, o.Folder, func() { set("PRAGMA max_page_count = 1000000") }
}

// TestStopTellsLost: a stop that cannot save what was acknowledged says so, and how
// much it is.
func TestStopTellsLost(t *testing.T) {
	t.Parallel()
	st, folder, _ := storeWithUnsaved(t)
	if err := st.Close(); !isDiskFull(err) || !strings.Contains(err.Error(), "saving the last changes (2, which are lost): ") {
		t.Errorf("got %v, want that 2 changes are lost on a full disk", err)
	}
	if n := countRows(t, folder, "messages"); n != 0 {
		t.Errorf("%d messages are stored, want none: this test needs a full disk", n)
	}
}

// writerFunc is a writer that is a function.
type writerFunc func(b []byte)

func (f writerFunc) Write(b []byte) (int, error) {
	f(b)
	return len(b), nil
}

// TestStopTriesAgain: what the last batch could not save is saved if that works a
// moment later. The writer's own line in the log, between the two, is that moment;
// so the test cannot be parallel.
func TestStopTriesAgain(t *testing.T) {
	st, folder, makeSpace := storeWithUnsaved(t)
	before, out, failures := slog.Default(), log.Writer(), 0
	defer func() {
		slog.SetDefault(before)
		log.SetOutput(out) // which slog does not give back
	}()
	slog.SetDefault(slog.New(slog.NewTextHandler(writerFunc(func(b []byte) {
		if bytes.Contains(b, []byte("cannot store what changed")) {
			failures++
			makeSpace()
		}
	}), nil)))
	if err := st.Close(); err != nil {
		t.Errorf("closing the store: %v", err)
	}
	if failures != 1 {
		t.Errorf("saving failed %d times, want once", failures)
	}
	if n := countRows(t, folder, "messages"); n != 2 {
		t.Errorf("%d messages are stored, want 2", n)
	}
}
