package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"homeroom/datadir"
	"homeroom/logbook"
	"homeroom/store"
	"homeroom/uring"
)

// server is a running chat server.
type server struct {
	// fixed when it is made
	cfg       config // as it was started; what can change since is in settings
	live      atomic.Pointer[config]
	reread    func() (config, error) // reads the settings anew; nil: it cannot
	program   string                 // the file of what runs; "": it is not looked at
	reloading turn                   // of whoever reads them
	began     time.Time
	store     store.Store
	saver     *saver // of what need not be stored at once
	clock     *clock
	now       wallClock  // for what people are shown
	accounts  *passwords // of accounts
	doors     *passwords // of rooms and groups, which cost little
	expirer   *expirer
	timeDue   expiry // the clock is to be saved, where it must be
	commands  map[string]*command
	rooms     *rooms
	groups    *groups
	bans      *bans
	rings     *uring.Set // for what is said in rooms
	counts    counts
	failures  loginFailures
	log       *logbook.Log // what administrators read

	users    *users
	messages messages
	storage  storage

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

// sayClosed says that the data folder had to be closed to others.
func (srv *server) sayClosed() {
	if was := srv.life.folder.Was; was != 0 {
		slog.Info("others might enter the data folder; it is closed to them now", "folder", srv.cfg.Server.Data, "mode", fmt.Sprintf("%04o", was))
	}
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
func newServer(cfg config, ask store.Asker) (*server, error) {
	folder, err := datadir.Lock(cfg.Server.Data)
	if err != nil {
		return nil, err
	}
	srv := &server{
		cfg: cfg, began: time.Now(), now: time.Now, commands: commandTable(), reloading: newTurn(),
		log: logbook.New(io.Discard), users: newUsers(),
		doorway: newDoorway(&cfg), life: newLifecycle(folder),
	}
	if srv.rings, err = uring.Open(runtime.NumCPU()); err != nil {
		slog.Debug("each line is sent with a system call of its own", "reason", err)
	}
	srv.live.Store(&cfg)
	values, err := srv.openStore(ask)
	if err != nil {
		srv.rings.Close()
		return nil, errors.Join(err, folder.Release())
	}
	srv.accounts = newPasswords(cmp.Or(cfg.Auth.Iterations, int(values.Rounds)), values.Secret)
	srv.doors = newPasswords(doorRounds, nil)
	srv.accounts.configure(&cfg.Limits)
	srv.doors.configure(&cfg.Limits)
	srv.storage.secret = values.Secret
	if err := srv.load(); err != nil {
		srv.rings.Close()
		return nil, errors.Join(fmt.Errorf("reading the database in %s: %w", cfg.Server.Data, err), srv.store.Close(), folder.Release())
	}
	srv.life.run(srv.expirer.run)
	srv.life.run(srv.saver.run)
	srv.life.run(srv.renewVerifiers)
	return srv, nil
}

// load brings what is live into memory: accounts' heads, rooms and groups.
func (srv *server) load() error {
	srv.expirer = newExpirer(srv.clock)
	srv.rooms = newRooms(srv)
	srv.groups = newGroups(srv)
	if err := srv.loadShares(); err != nil {
		return err
	}
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
	srv.messages.next.run = srv.expireMessages
	srv.messages.unfinished.next.run = srv.expireUnfinished
	srv.messages.unfinished.by = map[holder]*share{}
	srv.groups.removed = func() { srv.expirer.set(&srv.messages.next, srv.clock.now()) }
	srv.groups.removed() // what ended while the server was off, or was not deleted to the end
	srv.timeDue.run = func() {
		srv.saver.keepTime()
		srv.expirer.set(&srv.timeDue, 2*srv.clock.now()-srv.clock.base)
	}
	if !srv.clock.sure {
		srv.expirer.set(&srv.timeDue, srv.clock.base+firstKept)
	}
}

// nameFree tells whoever waits for an ending session's name and place.
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
	srv.accounts.close()
	srv.doors.close()
	srv.doorway.close(warningFrame(why))
	srv.failures.close()
	srv.doorway.web.close()
	failed := srv.closeControl()
	srv.life.end()
	srv.rings.Close()
	return errors.Join(srv.saver.stop(), srv.store.Close(), failed, srv.life.folder.Release())
}

// serve is the reader: it runs a connection from its first byte to its end.
func (s *session) serve() {
	err := s.open()
	if err == nil {
		err = s.greet()
	}
	s.serveOn(err)
}

// open makes the link ready. A client that speaks something else than TLS is told so.
func (s *session) open() error {
	limit := handshakeTime
	if grace := s.srv.settings().Limits.LoginGrace.Duration; grace > 0 {
		limit = min(grace, limit)
	}
	err := s.link.Open(limit)
	var other tls.RecordHeaderError
	if errors.As(err, &other) && other.Conn != nil {
		_, _ = other.Conn.Write(warningFrame("this port speaks TLS only").show(lookProgram)) // it may be gone
	}
	return err
}

// serveOn reads until the connection is over (err: it is already). After a login
// it goes on in a fresh goroutine: running commands makes a stack grow, and Go
// never makes it as small again as a new one; most users only listen.
func (s *session) serveOn(err error) {
	for err == nil && !s.loggedIn {
		err = s.readOnce()
		if errors.Is(err, errWoken) {
			err = s.woken()
		}
	}
	if err == nil {
		s.loggedIn = false
		s.srv.doorway.running.Go(func() { s.serveOn(nil) })
		return
	}
	s.tearDown(err)
}

// woken does what the reader was woken for.
func (s *session) woken() error {
	switch {
	case s.out.ending():
		return errEnded
	case s.putOut.Load() != nil:
		return s.goHome()
	case s.loginBy != 0 && time.Since(s.srv.began) >= s.loginBy:
		return errTooLate
	case s.loginBy != 0:
		s.wakeAt(s.srv.began.Add(s.loginBy))
	}
	return nil
}

// tearDown is the end of every session, whoever ended it.
func (s *session) tearDown(err error) {
	s.sayWhy(err)
	s.forgetIdentity(nil)
	s.srv.nameFree(s)
	s.srv.messages.unfinished.forget(s.post)
	s.out.close()
	if s.out.behind.Load() {
		s.srv.counts.slowReaders.Add(1)
	}
	s.loginBy = 0
	s.linger(err)
	s.link.Close()
	s.srv.doorway.gone(s)
}

// greet says hello and starts the time to log in.
func (s *session) greet() error {
	hello := appendLine(nil, "@mess #hello", []cell{quoted(s.srv.settings().Server.Name), quoted(firstHint)})
	if err := s.send(hello); err != nil {
		return err
	}
	s.out.flush()
	s.startGrace()
	return nil
}

// readOnce waits for bytes and handles every line that has come.
func (s *session) readOnce() error {
	data, err := s.link.Receive()
	defer s.link.Release()
	if len(data) > 0 {
		s.srv.counts.bytesIn.Add(int64(len(data)))
		if err := s.handle(data); err != nil {
			return err
		}
	}
	if errors.Is(err, io.EOF) && s.lines.over() {
		err = errors.Join(s.handle([]byte{'\n'}), err)
	}
	return err
}

// scratch is what handling lines needs, lent to a session while it has some.
type scratch struct {
	words []string
	reply reply
}

var scratches = sync.Pool{New: func() any { return &scratch{words: make([]string, 0, 8)} }}

// handle takes the lines out of what has come and runs them.
func (s *session) handle(data []byte) error {
	work := scratches.Get().(*scratch)
	work.reply.s = s
	defer func() {
		work.reply.s = nil
		scratches.Put(work)
		s.flush()
	}()
	for len(data) > 0 {
		line, n, err := s.lines.next(data)
		data = data[n:]
		if answers := s.lines.answers(); len(answers) > 0 {
			err = errors.Join(err, s.send(answers))
		}
		if s.lines.wasAsked() { // after the answers: a client may hide what comes before those
			err = errors.Join(err, s.send(stillHere.show(s.look())))
		}
		if err != nil {
			return err
		}
		if line == nil {
			return nil
		}
		if s.out.ending() { // whoever was banned is not obeyed any more
			return errEnded
		}
		if err := s.line(cleanLine(line), work); err != nil {
			return err
		}
	}
	return nil
}

// stillHere answers telnet's "are you there".
var stillHere = warningFrame("yes, the server is here")

// line runs one line.
func (s *session) line(line string, work *scratch) error {
	work.reply.look = lookProgram
	switch {
	case s.post != nil:
		return s.takePart(line, &work.reply)
	case s.person:
		return s.personLine(line, work)
	}
	if !s.greeted {
		line = strings.TrimPrefix(line, "\ufeff") // a file of Windows' may begin with it
	}
	words := splitWords(line, work.words[:0])
	if !s.greeted {
		if looksLikeHTTP(line) {
			return errHTTP
		}
		if taken, err := s.opening(line, work); taken {
			return err
		}
	}
	if len(words) == 0 {
		return nil
	}
	s.greeted = true
	return s.command(words, &work.reply)
}

// sayWhy tells the user why the server ends the connection, if it does.
func (s *session) sayWhy(err error) {
	var known *replyError
	switch {
	case errors.Is(err, errLineTooLong):
		s.end(warningFrame("line longer than 1000 bytes"))
	case errors.As(err, &known) && known.fatal:
		s.end(warningFrame(known.text))
	}
}

// linger closes a connection that the server ends so that what was sent last
// still arrives: a close with input unread, or still coming, would throw it away.
func (s *session) linger(err error) {
	if s.link.CloseWrite() != nil || errors.Is(err, io.EOF) {
		return
	}
	end := time.Now().Add(lingerTime)
	defer time.AfterFunc(lingerTime, s.link.Wake).Stop()
	for err = nil; err == nil || errors.Is(err, errWoken) && !s.cutOff.Load() && time.Now().Before(end); {
		_, err = s.link.Receive()
		s.link.Release()
	}
}

// counts is what happened since the server began.
type counts struct {
	bytesIn, bytesOut atomic.Int64
	slowReaders       atomic.Int64 // disconnected because they did not read
	refusedLogins     atomic.Int64

	mu       sync.Mutex
	messages meter // broadcasts, private and posted messages
}

// said counts a message that somebody sent.
func (c *counts) said(at time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages.add(at, 1)
}

// sent is how many messages there were, and how many a second lately.
func (c *counts) sent(at time.Duration) (total int64, perSecond float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages.total, c.messages.perSecond(at)
}

// meterSpan is over how many whole seconds a rate is taken.
const meterSpan = 10

// meter counts what happens, and how often it did lately.
type meter struct {
	total   int64
	newest  int64                // the second that is being counted
	seconds [meterSpan + 1]int64 // it, and those before it
}

// add counts n at a moment.
func (m *meter) add(at time.Duration, n int64) {
	m.advance(int64(at / time.Second))
	m.total += n
	m.seconds[m.newest%int64(len(m.seconds))] += n
}

// advance begins another second, and empties those in which nothing happened.
func (m *meter) advance(second int64) {
	for s := max(m.newest, second-int64(len(m.seconds))) + 1; s <= second; s++ {
		m.seconds[s%int64(len(m.seconds))] = 0
	}
	m.newest = max(m.newest, second)
}

// perSecond is the rate over the last whole seconds.
func (m *meter) perSecond(at time.Duration) float64 {
	m.advance(int64(at / time.Second))
	sum := -m.seconds[m.newest%int64(len(m.seconds))]
	for _, n := range m.seconds {
		sum += n
	}
	return float64(sum) / meterSpan
}
