package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
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

// cmdRestart is `#restart ["reason"]`: 3504, after why, where the settings are such
// that the server would not start again.
func (s *session) cmdRestart(words []string, r *reply) error {
	if reread := s.srv.reread; reread != nil {
		if _, err := reread(); err != nil {
			s.put(warningFrame(oneLine(err)))
			return fail(statusBadArgs)
		}
	}
	return s.order(orderRestart, "the server is starting anew", words, r)
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
func startAnew(letGo func(), told chan os.Signal) error {
	letGo()
	signal.Stop(told) // it was the last to get them; what came before that is in told now
	if len(told) > 0 {
		return nil
	}
	path, err := os.Executable()
	if err == nil {
		err = syscall.Exec(path, os.Args, os.Environ())
	}
	return fmt.Errorf("starting the program anew: %w", err)
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
