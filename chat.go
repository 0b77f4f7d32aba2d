package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"homeroom/certs"
	"homeroom/datadir"
	"homeroom/logbook"
)

// server is a running chat server.
type server struct {
	// fixed when it is made
	cfg            config // as it was started; what can change since is in settings
	live           atomic.Pointer[config]
	reread         func() (config, error) // reads the settings anew; nil: it cannot
	reloading      turn                   // of whoever reads them
	began          time.Time
	folder         *datadir.Locked
	store          store
	clock          *clock
	now            wallClock  // for what people are shown
	accounts       *passwords // of accounts
	doors          *passwords // of rooms and groups, which cost little
	expirer        *expirer
	messageEnd     expiry // the message that ends next
	timeDue        expiry // the clock is to be saved, where it must be
	commands       map[string]*command
	rooms          *rooms
	groups         *groups
	admission      *admission
	stopBackground chan struct{}
	bans           *bans
	orders         chan order // to the whole program
	rings          *ringSet   // for what is said in rooms
	counts         counts
	diskFailed     chan error // gets the reason, once, when nothing can be saved any more
	background     sync.WaitGroup
	controlling    sync.WaitGroup // who accepts on the control socket
	log            *logbook.Log   // what administrators read

	users    *users
	messages atomic.Int64 // stored, in all groups

	unfinished atomic.Int64 // bytes of messages whose lines are still coming

	certificates *certs.Keeper // nil: no TLS
	tlsConfig    *tls.Config   // nil: no TLS

	mu          sync.Mutex
	listener    net.Listener
	tlsListener net.Listener // nil: no TLS
	control     net.Listener // nil: no control socket
	web         *webServer   // nil: no web listener
	sessions    map[*session]bool
	stopping    bool
	running     sync.WaitGroup // readers
}

// newServer opens the data folder and makes a server that is ready to listen. It
// asks for a passphrase if the settings say so.
func newServer(cfg config, ask asker) (*server, error) {
	folder, err := datadir.Lock(cfg.Server.Data)
	if err != nil {
		return nil, err
	}
	srv := &server{
		cfg: cfg, began: time.Now(), now: time.Now, folder: folder, commands: commandTable(),
		admission: newAdmission(&cfg), sessions: map[*session]bool{}, stopBackground: make(chan struct{}),
		diskFailed: make(chan error, 1), orders: make(chan order, 1), reloading: newTurn(),
		log:   logbook.New(io.Discard),
		users: newUsers(),
	}
	if srv.rings, err = openRings(runtime.NumCPU()); err != nil {
		slog.Debug("each line is sent with a system call of its own", "reason", err)
	}
	srv.live.Store(&cfg)
	o := storeOptions{
		folder: cfg.Server.Data, key: newKeySource(cfg.Server.Key, cfg.Server.Data, ask), periodic: cfg.Persist.Mode == "periodic", every: cfg.Persist.Every.Duration,
		readers: max(2, min(runtime.NumCPU(), runtime.GOMAXPROCS(0))), now: time.Now, lost: srv.lostRecord,
		failed: func(err error) { srv.diskFailed <- err },
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
	srv.background.Go(func() { srv.expirer.run(srv.stopBackground) })
	srv.background.Go(func() { srv.renewVerifiers(srv.stopBackground) })
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
	return errors.Join(srv.loadRooms(accounts), srv.loadGroups(accounts))
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
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		if s.who.Load() != nil {
			s.put(f)
		}
	}
}

// stopTime is how long a stop waits for the sessions.
const stopTime = 3 * time.Second

// stop tells everyone, ends all sessions, saves and closes.
func (srv *server) stop(why string) error {
	srv.mu.Lock()
	srv.stopping = true
	for _, l := range []net.Listener{srv.listener, srv.tlsListener} {
		if l != nil {
			l.Close()
		}
	}
	last := warningFrame(why)
	for s := range srv.sessions {
		s.end(last)
	}
	srv.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		srv.running.Wait()
		close(ended)
	}()
	timer := time.AfterFunc(stopTime, srv.cutAll)
	<-ended
	timer.Stop()
	srv.web.close()
	failed := srv.closeControl()
	close(srv.stopBackground)
	srv.background.Wait()
	srv.rings.close()
	return errors.Join(srv.store.close(), failed, srv.folder.Release())
}

// cutAll cuts off the sessions that did not end by themselves.
func (srv *server) cutAll() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		s.cut()
	}
}
