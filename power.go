package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"homeroom/certs"
	"homeroom/datadir"
	"homeroom/store"
)

// order is what an administrator wants the whole program to do.
type order struct {
	what   orderKind
	reason string // as everybody is told
}

type orderKind uint8

const (
	orderStop orderKind = iota
	orderRestart
	orderReboot
	orderPoweroff
)

// errRestart is how run ends where the program is to start anew.
var errRestart = errors.New("the program is to start anew")

// cmdShutdown is `#shutdown ["reason"]`. It and the next ones are answered before
// anything happens.
func (s *session) cmdShutdown(words []string, r *reply) error {
	return s.order(orderStop, "the server is stopping", words, r)
}

// onlyTry, in place of the reason of a #restart, has it only say why it would be
// refused.
const onlyTry = "-try"

// cmdRestart is `#restart ["reason"]`: 3504, after why, where the server would not
// start again.
func (s *session) cmdRestart(words []string, r *reply) error {
	if err := s.srv.tryRestart(); err != nil {
		s.put(warningFrame(oneLine(err)))
		return fail(statusBadArgs)
	}
	if len(words) == 1 && words[0] == onlyTry {
		return nil
	}
	return s.order(orderRestart, "the server is starting anew", words, r)
}

// tryRestart tries what a start anew does, before anybody is told to go.
func (srv *server) tryRestart() error {
	if srv.reread == nil {
		return nil
	}
	cfg, err := srv.reread()
	if err != nil {
		return err
	}
	if srv.program != "" {
		if err := checkProgram(srv.program); err != nil {
			return err
		}
	}
	return srv.newTrial(nil).start(context.Background(), &cfg)
}

// cmdReboot is `#reboot ["reason"]`: 3508 unless the settings have a command.
func (s *session) cmdReboot(words []string, r *reply) error {
	if s.srv.settings().Admin.Reboot == "" {
		return fail(statusDisabled)
	}
	return s.order(orderReboot, "the machine is starting anew", words, r)
}

// cmdPoweroff is `#poweroff ["reason"]`: 3508 unless the settings have a command.
func (s *session) cmdPoweroff(words []string, r *reply) error {
	if s.srv.settings().Admin.Poweroff == "" {
		return fail(statusDisabled)
	}
	return s.order(orderPoweroff, "the machine is being switched off", words, r)
}

// order hands an order on, once the reply is on its way. While one waits, more of
// them count for nothing.
func (s *session) order(what orderKind, why string, words []string, r *reply) error {
	o := order{what, why + " (" + s.shownName() + ")" + because(strings.Join(words, " "))}
	r.then = func() {
		select {
		case s.srv.life.orders <- o:
		default:
		}
	}
	return nil
}

// obey does what an order says; ok is false where the server goes on.
func (srv *server) obey(ctx context.Context, o order) (end ending, ok bool) {
	switch o.what {
	case orderRestart:
		return ending{o.reason, errRestart}, true
	case orderReboot:
		return ending{why: o.reason}, srv.command(ctx, srv.settings().Admin.Reboot, o)
	case orderPoweroff:
		return ending{why: o.reason}, srv.command(ctx, srv.settings().Admin.Poweroff, o)
	}
	return ending{why: o.reason}, true
}

// commandTime is how long a command for the machine may take.
const commandTime = 30 * time.Second

// command runs what the settings say for the machine, after everybody was told.
// Where it fails, everybody is told that too, and the server goes on.
func (srv *server) command(ctx context.Context, line string, o order) (done bool) {
	srv.announce(warningFrame(o.reason))
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	words := splitWords(line, nil)
	out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
	if err == nil {
		return true
	}
	slog.Error("the command for the machine failed; the server goes on", "command", line, "error", err, "output", string(out))
	srv.announce(warningFrame("that failed; the server goes on"))
	return false
}

// startAnew puts the program on the disk, which may be a newer one, in the place of
// this one, in the same process, unless told holds a signal to end. One that comes
// later ends the process at once, whichever of the two it finds. It is lost only in
// the microseconds in which the system has handed it to a thread of this program and
// then takes that thread away: the next program serves, and has to be told again. (A
// service manager does not come here, see exitRestart.)
func startAnew(program string, letGo func(), told chan os.Signal) error {
	letGo()
	signal.Stop(told) // it was the last to get them; what came before that is in told now
	if len(told) > 0 {
		return nil
	}
	return fmt.Errorf("starting the program %s anew: %w", program, syscall.Exec(program, os.Args, os.Environ()))
}

// ending is why a server ends, as everybody is told, and what run is to return
// then.
type ending struct {
	why string
	err error
}

// outcome is what run returns after a stop. A program that starts anew returns to
// nobody, so the log has what went wrong.
func (e ending) outcome(stopped error) error {
	if stopped == nil {
		slog.Info("stopped")
	}
	if errors.Is(e.err, errReported) {
		return e.err
	}
	if stopped != nil && errors.Is(e.err, errRestart) {
		slog.Error("the server starts anew, but something went wrong at its stop", "error", stopped)
	}
	return errors.Join(stopped, e.err)
}

// errReported is a failure whose reason is in the log already.
var errReported = errors.New("see the log")

// trial is a start that is tried while the server runs in whose place it is to come.
type trial struct {
	held   []netip.AddrPort // where that one listens
	folder string           // that it has
	was    *config          // only what differs from this is tried; nil: everything
}

// newTrial is a trial of a start in this server's place.
func (srv *server) newTrial(was *config) trial {
	t := trial{folder: srv.cfg.Server.Data, was: was}
	srv.doorway.mu.Lock()
	defer srv.doorway.mu.Unlock()
	listeners := []net.Listener{srv.doorway.listener, srv.doorway.tlsListener}
	if srv.doorway.web != nil {
		listeners = append(listeners, srv.doorway.web.listener)
	}
	for _, l := range listeners {
		if l == nil {
			continue
		}
		if at, ok := l.Addr().(*net.TCPAddr); ok {
			t.held = append(t.held, at.AddrPort())
		}
	}
	return t
}

// start tries what a start with these settings does, and changes nothing.
func (t trial) start(ctx context.Context, cfg *config) error {
	all := t.was == nil
	if all || cfg.Server.Listen != t.was.Server.Listen || cfg.TLS.Listen != t.was.TLS.Listen || cfg.Web.Listen != t.was.Web.Listen {
		if err := t.ports(ctx, cfg); err != nil {
			return err
		}
	}
	if cfg.TLS.Listen != "" && (all || cfg.TLS != t.was.TLS) {
		if err := certs.Try(cfg.certificateOptions()); err != nil {
			return err
		}
	}
	if !all && cfg.Server.Key == t.was.Server.Key && cfg.Server.Data == t.was.Server.Data || !all && cfg.Server.Key == "ask" {
		return nil
	}
	folder := cfg.Server.Data
	process, err := datadir.User(folder)
	if err != nil {
		return err
	}
	if process != "" && !sameFolder(folder, t.folder) {
		return &datadir.InUseError{Process: process, Folder: folder}
	}
	return store.Try(folder, store.NewKeySource(cfg.Server.Key, folder, nil, newGCM))
}

// ports tries to listen wherever these settings say.
func (t trial) ports(ctx context.Context, cfg *config) error {
	var before []netip.AddrPort
	for _, w := range []struct{ key, address string }{
		{"server.listen", cfg.Server.Listen}, {"web.listen", cfg.Web.Listen}, {"tls.listen", cfg.TLS.Listen},
	} {
		if w.address == "" {
			continue
		}
		at, err := net.ResolveTCPAddr("tcp", w.address)
		if err == nil {
			err = t.listen(ctx, at.AddrPort(), before)
			before = append(before, at.AddrPort())
		}
		if err != nil && (w.key != "web.listen" || w.address != defaultConfig().Web.Listen) { // without that a server starts
			return fmt.Errorf("%s: %w", w.key, err)
		}
	}
	return nil
}

// listen tries to listen at an address. What the running server holds there is free
// for the next one; what the next one needs twice is not.
func (t trial) listen(ctx context.Context, at netip.AddrPort, before []netip.AddrPort) error {
	if slices.ContainsFunc(before, func(b netip.AddrPort) bool { return excludes(b, at) }) {
		return fmt.Errorf("cannot listen on %s: another setting needs the same port", at)
	}
	err := tryListen(ctx, at)
	if !errors.Is(err, syscall.EADDRINUSE) || !slices.ContainsFunc(t.held, func(h netip.AddrPort) bool { return excludes(h, at) }) {
		return err
	}
	if at.Addr().IsValid() && !at.Addr().IsUnspecified() {
		return nil // nobody else can be there
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("listing the addresses of this machine: %w", err)
	}
	for _, a := range addrs {
		ip, err := netip.ParsePrefix(a.String())
		one := netip.AddrPortFrom(ip.Addr().Unmap(), at.Port())
		if err != nil || ip.Addr().IsLinkLocalUnicast() || slices.ContainsFunc(t.held, func(h netip.AddrPort) bool { return excludes(h, one) }) {
			continue
		}
		if err := tryListen(ctx, one); errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return nil
}

// tryListen listens for a moment.
func tryListen(ctx context.Context, at netip.AddrPort) error {
	address := at.String()
	if !at.Addr().IsValid() {
		address = fmt.Sprintf(":%d", at.Port())
	}
	l, err := listenTCP(ctx, address)
	if err != nil {
		return err
	}
	return l.Close()
}

// excludes reports whether a listener keeps another one from an address.
func excludes(held, at netip.AddrPort) bool {
	if held.Port() != at.Port() || at.Port() == 0 {
		return false
	}
	every := func(a netip.Addr) bool { return !a.IsValid() || a == netip.IPv6Unspecified() } // of both families
	a, b := held.Addr().Unmap(), at.Addr().Unmap()
	return every(a) || every(b) || a == b || a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified())
}

// checkProgram checks that a file can be started: a whole program, or a script.
func checkProgram(path string) error {
	if err := unix.Access(path, unix.X_OK); err != nil {
		return fmt.Errorf("the program %s cannot be started: %w", path, err)
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil // it may be started, and not be read
	}
	if err != nil {
		return fmt.Errorf("the program %s cannot be started: %w", path, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("the program %s cannot be started: it is no file", path)
	}
	var start [2]byte
	if _, err := file.ReadAt(start[:], 0); err == nil && string(start[:]) == "#!" {
		return nil
	}
	program, err := elf.NewFile(file)
	if err != nil {
		return fmt.Errorf("the program %s cannot be started: %w", path, err)
	}
	for _, part := range program.Progs {
		if part.Off+part.Filesz > uint64(info.Size()) {
			return fmt.Errorf("the program %s cannot be started: a part of it is missing", path)
		}
	}
	return nil
}
