package main

import (
	"errors"
	"runtime"
	"time"

	"homeroom/store"
)

// openStore opens the store of the data folder, and sets the server's clock by what is
// saved there.
func (srv *server) openStore(ask store.Asker) (store.Values, error) {
	cfg := &srv.cfg
	st, err := store.OpenSQLite(store.Options{
		Folder: cfg.Server.Data, Key: store.NewKeySource(cfg.Server.Key, cfg.Server.Data, ask, newGCM),
		Periodic: cfg.Persist.Mode == "periodic", Every: cfg.Persist.Every.Duration,
		Readers: max(2, min(runtime.NumCPU(), runtime.GOMAXPROCS(0))),
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
	srv.store = st
	return st.Values, nil
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
