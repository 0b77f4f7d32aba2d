package main

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"homeroom/store"
)

// openStore opens the store of the data folder, and sets the server's clock by what is
// saved there.
func (srv *server) openStore(ask store.Asker) (store.Values, error) {
	cfg := &srv.cfg
	st, err := store.OpenSQLite(store.Options{
		Folder: cfg.Server.Data, Key: store.NewKeySource(cfg.Server.Key, cfg.Server.Data, ask, newGCM),
		Periodic: cfg.Persist.Mode == "periodic",
		Readers:  max(2, min(runtime.NumCPU(), runtime.GOMAXPROCS(0))),
		Clock: func(saved, savedWall int64) store.Clock {
			srv.clock = newClock(saved, savedWall, time.Now())
			return store.Clock{Now: srv.clock.now, Wall: srv.clock.wall}
		},
		Fill:   func(v *store.Values) { fillValues(v, cfg.Auth.Iterations == 0) },
		Lost:   srv.lostRecord,
		Failed: func(err error) { srv.life.diskFailed <- err },
	})
	if err != nil {
		return store.Values{}, err
	}
	srv.store, srv.saver = st, newSaver(st, cfg.Persist.Every.Duration)
	return st.Values, nil
}

// saver saves what changed and need not be stored at once: when empty rooms and groups
// end, when accounts were last here, the clock, and in periodic mode everything.
type saver struct {
	// fixed when it is made
	store store.Store
	every time.Duration
	due   chan struct{} // something is to be saved

	mu   sync.Mutex
	ends store.Ends // what the store does not know yet
}

// longestRetry is the time after which what could not be saved is tried again, at the
// latest.
const longestRetry = 5 * time.Second

func newSaver(st store.Store, every time.Duration) *saver {
	return &saver{store: st, every: every, due: make(chan struct{}, 1), ends: store.Ends{}}
}

// touch notes when an empty room or group ends, or when an account was last here.
func (sv *saver) touch(k store.Kind, id int64, ends int64) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	sv.ends[store.Ref{Kind: k, ID: id}] = ends
	sv.keepTime()
}

// keepTime has the clock saved, which goes with every save.
func (sv *saver) keepTime() {
	select {
	case sv.due <- struct{}{}:
	default:
	}
}

// run is the savers' loop: it wakes every period and saves what changed since. While
// nothing changes it does not even wake, so that a small machine can sleep.
func (sv *saver) run(stop <-chan struct{}) {
	pause := sv.every
	for {
		select {
		case <-sv.due:
		case <-sv.store.Due():
		case <-stop:
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-stop:
			timer.Stop()
			return
		}
		if pause = sv.every; sv.save() != nil { // the store has logged why
			pause = min(pause, longestRetry)
		}
	}
}

// save saves what is to be saved now. What cannot be saved is to be saved later.
func (sv *saver) save() error {
	sv.mu.Lock()
	ends := sv.ends
	sv.ends = store.Ends{}
	select { // what was due is in ends
	case <-sv.due:
	default:
	}
	sv.mu.Unlock()
	err := sv.store.Save(ends)
	if err == nil {
		return nil
	}
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for ref, end := range ends {
		if _, newer := sv.ends[ref]; !newer {
			sv.ends[ref] = end
		}
	}
	sv.keepTime()
	return err
}

// stop saves what is left, if there is something: run has ended.
func (sv *saver) stop() error {
	if len(sv.ends) == 0 {
		return nil // the store saves the rest when it is closed
	}
	return sv.save()
}

// fillValues makes what a database lacks at its first start: the secret, and how many
// rounds a password is hashed, where the settings leave that to this machine.
func fillValues(v *store.Values, calibrate bool) {
	if v.Rounds == 0 && calibrate {
		v.Rounds = int64(calibrateRounds())
	}
	if len(v.Secret) == 0 {
		v.Secret = randomBytes(secretBytes)
	}
}

// statusOf is how a failure that is no status of its own is shown. Those that the
// operator should hear of keep their cause.
func statusOf(err error) *replyError {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &replyError{code: statusNotFound}
	case errors.Is(err, store.ErrFull):
		return &replyError{code: statusLimit, cause: err}
	case errors.Is(err, store.ErrBroken): // which is in the log already
		return &replyError{code: statusUnknown}
	}
	return &replyError{code: statusUnknown, cause: err}
}
