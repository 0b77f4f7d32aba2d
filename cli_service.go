package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// runInstall is "homeroom install".
func runInstall(env environment, flags *flag.FlagSet, args []string) int {
	noStart := flags.Bool("no-start", false, "do not start it now (to put a backup back first, say)")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	m, err := rootMachine(env, "install")
	if err == nil {
		err = m.install(!*noStart)
	}
	return report(env, err)
}

// runUninstall is "homeroom uninstall".
func runUninstall(env environment, flags *flag.FlagSet, args []string) int {
	purge := flags.Bool("purge", false, "remove for ever what it has stored too: data, key, settings and user")
	yes := flags.Bool("yes", false, "do not ask before that")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	m, err := rootMachine(env, "uninstall")
	switch {
	case err == nil && *purge:
		err = uninstallAll(env, m, *yes)
	case err == nil:
		err = uninstallOnly(m)
	}
	return report(env, err)
}

// uninstallOnly takes the service away and says what stays.
func uninstallOnly(m *machine) error {
	if !m.installed() && !exists(m.at(serviceProgram)) {
		return errNotInstalled
	}
	stays := m.leftovers()
	if err := m.uninstall(); err != nil {
		return err
	}
	for _, s := range stays {
		m.say("kept %s%s", s.what, s.where())
	}
	m.say("To remove that too, for ever, run the program's file as root with: uninstall -purge")
	return nil
}

// uninstallAll takes the service away with all that it has stored, after asking.
func uninstallAll(env environment, m *machine, yes bool) error {
	found := m.leftovers()
	if len(found) == 0 && !m.installed() && !exists(m.at(serviceProgram)) {
		return errNotInstalled
	}
	if !yes {
		if err := askPurge(env, found); err != nil {
			return err
		}
	}
	if err := m.uninstall(); err != nil {
		return err
	}
	return m.purge(found)
}

// askPurge asks whether all of that may go; nil: yes.
func askPurge(env environment, found []removal) error {
	if env.stdin == nil {
		return errors.New("-purge asks before it removes everything, and here is no terminal to ask in; -yes does it without asking")
	}
	fmt.Fprintln(env.stdout, "This stops the service and removes, for ever:")
	for _, r := range found {
		fmt.Fprintf(env.stdout, "  %s%s\n", r.what, r.where())
	}
	fmt.Fprint(env.stdout, "Type yes to go on: ")
	answer, err := readAnswer(env.ctx, env.stdin)
	if err != nil {
		return err
	}
	if strings.TrimSpace(answer) != "yes" {
		return errors.New("that was not yes; nothing is removed")
	}
	return nil
}

// readAnswer reads a line, until ctx ends: a terminal cannot be woken, so its
// reader is left behind then.
func readAnswer(ctx context.Context, in io.Reader) (string, error) {
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(in).ReadString('\n') // an end is no yes
		line <- text
	}()
	select {
	case text := <-line:
		return text, nil
	case <-ctx.Done():
		return "", errors.New("interrupted; nothing is removed")
	}
}

// runStart, runStop and runRestart are the commands of these names.
func runStart(env environment, flags *flag.FlagSet, args []string) int {
	return runControl(env, flags, args, "start")
}

func runStop(env environment, flags *flag.FlagSet, args []string) int {
	return runControl(env, flags, args, "stop")
}

func runRestart(env environment, flags *flag.FlagSet, args []string) int {
	return runControl(env, flags, args, "restart")
}

func runControl(env environment, flags *flag.FlagSet, args []string, verb string) int {
	if code, done := parse(flags, args, 0); done {
		return code
	}
	m, err := rootMachine(env, verb)
	if err == nil {
		err = m.control(verb)
	}
	return report(env, err)
}

// runLogs is "homeroom logs": the last lines of the service's log.
func runLogs(env environment, flags *flag.FlagSet, args []string) int {
	follow := flags.Bool("f", false, "go on with what comes, until Ctrl-C")
	lines := flags.Int("n", 100, "how `MANY` lines")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	if *lines < 0 {
		fmt.Fprintf(env.stderr, "%s: -n must not be negative\n", flags.Name())
		return exitUsage
	}
	m, err := thisMachine(env)
	if err == nil && !m.installed() {
		err = errNotInstalled
	}
	if err == nil {
		cfg, _ := m.serviceSettings() // bad ones are told in the log
		err = m.show(m.logCommand(&cfg, *lines, *follow))
	}
	return report(env, err)
}

// showLog runs a program that shows a log, until it or the user ends that.
func showLog(env environment, command []string) error {
	cmd := exec.CommandContext(env.ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = env.stdout, env.stderr
	if err := cmd.Run(); err != nil && env.ctx.Err() == nil {
		hint := ""
		if os.Geteuid() != 0 { // journalctl says that in many words of its own
			hint = "; use sudo"
		}
		return fmt.Errorf("cannot show the log: %s: %w%s", command[0], err, hint)
	}
	return nil
}

// rootMachine is this machine, for a command that changes it.
func rootMachine(env environment, command string) (*machine, error) {
	if os.Geteuid() != 0 {
		return nil, errNotRoot{command}
	}
	return thisMachine(env)
}
