package main

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/store"
)

// unwillingStore counts saves, and fails while it is told to.
type unwillingStore struct {
	store.Store

	mu      sync.Mutex
	failing bool
	saves   []store.Ends
}

// asked returns what was to be saved so far.
func (u *unwillingStore) asked() []store.Ends {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.saves
}

// fail has the saves from now on fail, or not.
func (u *unwillingStore) fail(failing bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failing = failing
}

func (u *unwillingStore) Save(ends store.Ends) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.saves = append(u.saves, ends)
	if u.failing {
		return fmt.Errorf("saving: %w", store.ErrFull)
	}
	return nil
}

func (u *unwillingStore) Due() <-chan struct{} { return nil }

// TestSaver: what changes is saved once a period, the last of it; what could not be saved
// is tried again after at most longestRetry, and what changed meanwhile wins.
func TestSaver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st, stop := &unwillingStore{}, make(chan struct{})
		sv := newSaver(st, time.Minute)
		go sv.run(stop)
		pass := func(d time.Duration, saves int, what string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if n := len(st.asked()); n != saves {
				t.Errorf("%s: %d saves, want %d", what, n, saves)
			}
		}
		pass(time.Hour, 0, "nothing changed")
		sv.touch(store.Room, 1, 10)
		sv.touch(store.Room, 1, 11)
		pass(time.Minute-1, 0, "before the period")
		pass(1, 1, "after it")
		if got := st.asked()[0]; len(got) != 1 || got[store.Ref{Kind: store.Room, ID: 1}] != 11 {
			t.Errorf("saved is %v, want the last end of room 1", got)
		}
		pass(time.Hour, 1, "nothing changed since")
		st.fail(true)
		sv.touch(store.Room, 1, 12)
		sv.touch(store.Group, 2, 20)
		pass(time.Minute, 2, "a save that fails")
		sv.touch(store.Group, 2, 21)
		pass(longestRetry, 3, "tried again")
		st.fail(false)
		pass(longestRetry, 4, "and again")
		got := st.asked()[3]
		if len(got) != 2 || got[store.Ref{Kind: store.Room, ID: 1}] != 12 || got[store.Ref{Kind: store.Group, ID: 2}] != 21 {
			t.Errorf("saved is %v, want 12 and what changed last, 21", got)
		}
		sv.keepTime()
		pass(time.Minute, 5, "the clock")
		sv.touch(store.Account, 3, 30)
		close(stop)
		synctest.Wait()
		if err := sv.stop(); err != nil || len(st.asked()) != 6 {
			t.Errorf("at the end: %d saves (%v), want 6", len(st.asked()), err)
		}
	})
}
