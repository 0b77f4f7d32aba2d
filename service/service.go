// Package service makes homeroom a service of the machine: one that starts at boot,
// runs as a user of its own and is restarted when it ends by itself.
//
// It works with systemd, OpenRC and SysV init. The texts that these are given lie
// beside this file, where packages of the system take them from as well. What the
// settings say is not known here: Settings is handed in.
//
// # Installing
//
// Install copies the running program, makes the user, the data folder and, if there
// is none, a settings file, and waits until the service serves. Each step looks at
// what is there first, so that a second Install upgrades, and finishes one that was
// interrupted. What cannot work (bad settings, a hidden data folder, a person named
// homeroom, a package of the system) is refused before the first step. Files are
// written whole and renamed. Uninstall keeps what the service has written, Purge does
// not.
//
// kardianos/service finds the service manager, installs the script, starts and stops.
// It refuses to overwrite a script, so an upgrade does that without it, and there is
// no moment without a script.
//
// # The unit of systemd
//
// It is sandboxed and has a watchdog. A reload runs `homeroom reload`, which needs no
// kill program and fails if the settings are refused. ProcSubset=pid is missing on
// purpose: without /proc/sys/net Go lets 128 connections wait at a port, not 4096.
// TimeoutAbortSec=3 keeps a server that does not even end within the promised 40 s.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	kardianos "github.com/kardianos/service"
)

// ErrNotInstalled is that there is no service to do something with.
var ErrNotInstalled = errors.New("the service is not installed; to install it: sudo homeroom install")

// Settings are those of the service that installing and controlling it depends on.
type Settings struct {
	Text      string                      // the file that a service without one gets
	Data, Key string                      // the data folder; the file with its key, if the settings name one
	Log       string                      // the log's file; "": the journal has it
	Ways      []string                    // how to connect, each as it is typed
	Pages     []string                    // the addresses of the web page
	Ready     func(context.Context) error // returns when the server answers
}

// Machine is the system that the service is on.
type Machine struct {
	ctx      context.Context
	out      io.Writer // for the user
	platform string    // its service manager
	self     string    // the program that runs now

	// Tests have other ones.
	root    string                                  // in front of every path; ""
	run     func(name string, args ...string) error // runs a program of the system
	has     func(name string) bool                  // reports whether there is such a program
	connect func(script string) (manager, error)    // connectManager
	show    func(command []string) error            // runs a program whose output somebody wants to see
}

// This is the machine that the program runs on, if it has a service manager that can
// be used. What is done is told to out.
func This(ctx context.Context, out, errs io.Writer) (*Machine, error) {
	platform := kardianos.Platform()
	first, _ := os.ReadFile("/proc/1/comm")
	_, inittab := os.Stat("/etc/inittab")
	if platform == onSysV && strings.TrimSpace(string(first)) != "init" && inittab != nil {
		platform = "" // the library takes SysV where it finds nothing else
	}
	switch platform {
	case onSystemd, onOpenRC, onSysV:
	default:
		return nil, errors.New("found neither systemd nor OpenRC nor SysV init here, which would run the service; " +
			"run `homeroom` by what this system has for that")
	}
	return &Machine{ctx: ctx, out: out, platform: platform, self: "/proc/self/exe",
		run: runProgram, has: hasProgram, connect: connectManager,
		show: func(command []string) error { return showProgram(ctx, out, errs, command) }}, nil
}

// HasJournal reports whether the machine keeps what services write to stderr.
func (m *Machine) HasJournal() bool { return m.platform == onSystemd }

// showProgram runs a program that shows a log, until it or the user ends that.
func showProgram(ctx context.Context, out, errs io.Writer, command []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		hint := ""
		if os.Geteuid() != 0 { // journalctl says that in many words of its own
			hint = "; use sudo"
		}
		return fmt.Errorf("cannot show the log: %s: %w%s", command[0], err, hint)
	}
	return nil
}
