package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"homeroom/datadir"
	"homeroom/logbook"
)

// server is a running chat server.
type server struct {
	// fixed when it is made
	cfg        config // as it was started; what can change since is in settings
	live       atomic.Pointer[config]
	reread     func() (config, error) // reads the settings anew; nil: it cannot
	reloading  turn                   // of whoever reads them
	began      time.Time
	store      store
	clock      *clock
	now        wallClock  // for what people are shown
	accounts   *passwords // of accounts
	doors      *passwords // of rooms and groups, which cost little
	expirer    *expirer
	messageEnd expiry // the message that ends next
	timeDue    expiry // the clock is to be saved, where it must be
	commands   map[string]*command
	rooms      *rooms
	groups     *groups
	bans       *bans
	rings      *ringSet // for what is said in rooms
	counts     counts
	log        *logbook.Log // what administrators read

	users    *users
	messages atomic.Int64 // stored, in all groups

	unfinished atomic.Int64 // bytes of messages whose lines are still coming

	doorway doorway
	life    lifecycle
}

// lifecycle is what the server's start and end have to do with: it holds the data
// folder and what runs besides the sessions.
type lifecycle struct {
	folder     *datadir.Locked
	orders     chan order // to the whole program
	diskFailed chan error // gets the reason, once, when nothing can be saved any more
	stop       chan struct{}
	background sync.WaitGroup
}

func newLifecycle(folder *datadir.Locked) lifecycle {
	return lifecycle{folder: folder, orders: make(chan order, 1), diskFailed: make(chan error, 1), stop: make(chan struct{})}
}

// run runs f beside the sessions until it is told to stop.
func (l *lifecycle) run(f func(stop <-chan struct{})) {
	l.background.Go(func() { f(l.stop) })
}

// end ends what runs in the background.
func (l *lifecycle) end() {
	close(l.stop)
	l.background.Wait()
}

// newServer opens the data folder and makes a server that is ready to listen. It
// asks for a passphrase if the settings say so.
func newServer(cfg config, ask asker) (*server, error) {
	folder, err := datadir.Lock(cfg.Server.Data)
	if err != nil {
		return nil, err
	}
	srv := &server{
		cfg: cfg, began: time.Now(), now: time.Now, commands: commandTable(), reloading: newTurn(),
		log: logbook.New(io.Discard), users: newUsers(),
		doorway: newDoorway(&cfg), life: newLifecycle(folder),
	}
	if srv.rings, err = openRings(runtime.NumCPU()); err != nil {
		slog.Debug("each line is sent with a system call of its own", "reason", err)
	}
	srv.live.Store(&cfg)
	o := storeOptions{
		folder: cfg.Server.Data, key: newKeySource(cfg.Server.Key, cfg.Server.Data, ask), periodic: cfg.Persist.Mode == "periodic", every: cfg.Persist.Every.Duration,
		readers: max(2, min(runtime.NumCPU(), runtime.GOMAXPROCS(0))), now: time.Now, lost: srv.lostRecord,
		failed: func(err error) { srv.life.diskFailed <- err },
	}
	if cfg.Auth.Iterations == 0 {
		o.rounds = calibrateRounds
	}
	st, err := openStore(o)
	if err != nil {
		srv.rings.close()
		return nil, errors.Join(err, folder.Release())
	}
	srv.store, srv.clock = st, st.clock
	srv.accounts = newPasswords(cmp.Or(cfg.Auth.Iterations, st.rounds), cfg.Limits.LoginsPerMinute, st.secret)
	srv.doors = newPasswords(doorRounds, cfg.Limits.LoginsPerMinute, nil)
	if err := srv.load(); err != nil {
		srv.rings.close()
		return nil, errors.Join(fmt.Errorf("reading the database in %s: %w", cfg.Server.Data, err), st.close(), folder.Release())
	}
	srv.life.run(srv.expirer.run)
	srv.life.run(srv.renewVerifiers)
	return srv, nil
}

// load brings what is live into memory: accounts' heads, rooms and groups.
func (srv *server) load() error {
	srv.expirer = newExpirer(srv.clock)
	srv.rooms = newRooms(srv)
	srv.groups = newGroups(srv)
	accounts, err := srv.loadAccounts()
	if err != nil {
		return err
	}
	if srv.bans, err = newBans(srv); err != nil {
		return err
	}
	srv.wire()
	return errors.Join(srv.loadRooms(accounts), srv.loadGroups(accounts))
}

// wire has what ends by itself tell the expirer, and the expirer do something about it.
func (srv *server) wire() {
	srv.messageEnd.run = srv.expireMessages
	srv.groups.removed = func() { srv.expirer.set(&srv.messageEnd, srv.clock.now()) }
	srv.groups.removed() // what ended while the server was off, or was not deleted to the end
	srv.timeDue.run = func() {
		srv.store.keepTime()
		srv.expirer.set(&srv.timeDue, 2*srv.clock.now()-srv.clock.base)
	}
	if !srv.clock.sure {
		srv.expirer.set(&srv.timeDue, srv.clock.base+firstKept)
	}
}

// nameFree tells who waits for an ending session's name and place.
func (srv *server) nameFree(s *session) {
	srv.users.mu.Lock()
	defer srv.users.mu.Unlock()
	s.taken = true
	if s.left != nil {
		close(s.left)
	}
}

// announce gives everyone who is logged in a frame.
func (srv *server) announce(f *frame) {
	srv.doorway.each(func(s *session) {
		if s.who.Load() != nil {
			s.put(f)
		}
	})
}

// stop tells everyone, ends all sessions, saves and closes.
func (srv *server) stop(why string) error {
	srv.doorway.close(warningFrame(why))
	srv.doorway.web.close()
	failed := srv.closeControl()
	srv.life.end()
	srv.rings.close()
	return errors.Join(srv.store.close(), failed, srv.life.folder.Release())
}
