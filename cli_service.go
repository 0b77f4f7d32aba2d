package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"homeroom/datadir"
	"homeroom/service"
)

// runInstall is "homeroom install".
func runInstall(env environment, flags *flag.FlagSet, args []string) int {
	noStart := flags.Bool("no-start", false, "do not start it now (to put a backup back first, say)")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	m, err := rootMachine(env, "install")
	if err != nil {
		return report(env, err)
	}
	settings, err := serviceSettings(service.SettingsFile, m.HasJournal())
	if err == nil {
		err = m.Install(settings, !*noStart)
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
	if err != nil {
		return report(env, err)
	}
	settings, _ := serviceSettings(service.SettingsFile, m.HasJournal()) // a file that cannot be read names nothing to remove
	if *purge {
		err = m.Purge(settings, func(found []service.Leftover) error { return askPurge(env, found, *yes) })
	} else {
		err = m.Uninstall(settings)
	}
	return report(env, err)
}

// askPurge asks whether all of that may go, unless that was said already; nil: yes.
func askPurge(env environment, found []service.Leftover, yes bool) error {
	if yes {
		return nil
	}
	if env.stdin == nil {
		return errors.New("-purge asks before it removes everything, and here is no terminal to ask in; -yes does it without asking")
	}
	fmt.Fprintln(env.stdout, "This stops the service and removes, for ever:")
	for _, l := range found {
		fmt.Fprintf(env.stdout, "  %s\n", l)
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

// runControl is "homeroom start", "homeroom stop" and "homeroom restart".
func runControl(verb string) func(environment, *flag.FlagSet, []string) int {
	return func(env environment, flags *flag.FlagSet, args []string) int {
		if code, done := parse(flags, args, 0); done {
			return code
		}
		m, err := rootMachine(env, verb)
		if err != nil {
			return report(env, err)
		}
		settings, err := serviceSettings(service.SettingsFile, m.HasJournal())
		if err == nil && verb == "restart" {
			err = tryRestart(env.ctx, settings.Data)
		}
		if err == nil || verb == "stop" { // bad settings keep nobody from stopping it
			err = m.Control(verb, settings)
		}
		if err == nil && settings.Data != "" {
			fmt.Fprintf(env.stdout, "data folder  %s\n", settings.Data)
		}
		return report(env, err)
	}
}

// tryRestart asks the server that runs on a folder whether it would start again. It
// knows best: it has the rights, and the ports, that the next one is to have.
func tryRestart(ctx context.Context, folder string) error {
	o, err := dialOperator(ctx, folder)
	if err != nil {
		return nil // then nobody is told to go
	}
	defer o.close()
	a, err := o.ask("#restart " + onlyTry)
	if err != nil || a.ok() {
		return nil // it hangs, or would start
	}
	return &refusedError{"the server would not start again, and goes on", a}
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
	m, err := service.This(env.ctx, env.stdout, env.stderr)
	if err == nil {
		settings, _ := serviceSettings(service.SettingsFile, m.HasJournal()) // the log says what is wrong with them
		err = m.ShowLog(settings.Log, *lines, *follow)
	}
	return report(env, err)
}

// rootMachine is this machine, for a command that changes it.
func rootMachine(env environment, command string) (*service.Machine, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("this needs the rights of root: sudo homeroom %s", command)
	}
	return service.This(env.ctx, env.stdout, env.stderr)
}

// serviceSettings reads the settings of the service; where the file is not there,
// those that it will have.
func serviceSettings(path string, journal bool) (service.Settings, error) {
	cfg, text := defaultConfig(), serviceSample(journal)
	err := cfg.parse(path, text)
	if exists(path) {
		cfg, err = loadConfig(path)
	}
	if err != nil {
		return service.Settings{}, err
	}
	s := service.Settings{
		Text: text, Data: cfg.Server.Data, Key: cfg.Server.Key, Log: cfg.logFile(),
		Ways:  waysIn(cfg.Server.Listen, telnetTo),
		Ready: func(ctx context.Context) error { return waitReady(ctx, &cfg) },
	}
	if cfg.Web.Listen != "" {
		s.Pages = waysIn(cfg.Web.Listen, pageAt)
	}
	return s, nil
}

// serviceSample is the settings file that a new service gets. Without a journal the
// log goes to a file, which the server keeps small.
func serviceSample(journal bool) string {
	text := strings.Replace(sampleConfig, `data   = "data"            `, fmt.Sprintf("data   = %q", service.Data), 1)
	if !journal {
		text = strings.Replace(text, `to = "stderr"  `, `to = "file"    `, 1)
		text = strings.Replace(text, `file = ""`, fmt.Sprintf("file = %q", service.LogFile), 1)
	}
	return text
}

// waitReady waits until the server that the settings are for answers on its port.
func waitReady(ctx context.Context, cfg *config) error {
	const longest, pause = 60 * time.Second, 50 * time.Millisecond
	ctx, cancel := context.WithTimeoutCause(ctx, longest, errors.New("it does not answer"))
	defer cancel()
	for {
		process, err := datadir.User(cfg.Server.Data)
		if err != nil {
			return err
		}
		at, err := net.ResolveTCPAddr("tcp", cfg.Server.Listen)
		if err != nil {
			return fmt.Errorf("server.listen: %w", err)
		}
		if process != "" && (at.Port == 0 || pingLine(at, longest/10) == nil) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}
