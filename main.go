// Homeroom is a chat server in one file: rooms, private messages and threaded
// message groups for telnet and programs (README.md, docs/PROTOCOL.md).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/term"

	"homeroom/logbook"
	"homeroom/store"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env := environment{ctx: ctx, letGo: stop, stdout: os.Stdout, stderr: os.Stderr}
	env.program, _ = os.Executable() // later it would follow a file that is renamed
	if term.IsTerminal(int(os.Stdin.Fd())) {
		env.stdin, env.ask = foreground{os.Stdin}, askTerminal(ctx, os.Stdin)
	}
	code := runMain(env, os.Args[1:])
	stop()
	os.Exit(code)
}

// runServe runs the server until it is told to stop.
func runServe(env environment, flags *flag.FlagSet, args []string) int {
	path := flags.String("config", "", "settings `FILE` (default: chat.toml here, if there is one)")
	data := flags.String("data", "", "`DIR` for everything that is written (server.data)")
	listen := flags.String("listen", "", "`ADDR`ess and port (server.listen)")
	supervised := flags.Bool("supervised", false, "a service manager starts the server anew: #restart ends it with exit code 3")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	told := make(chan os.Signal, 1) // holds the first signal to end
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(told)
	err := serve(env, *path, *data, *listen)
	if errors.Is(err, errRestart) {
		if *supervised {
			return exitRestart
		}
		err = startAnew(env.program, env.letGo, told)
	}
	if err == nil {
		return exitDone
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintf(env.stderr, "homeroom: %v\n", oneLine(err))
	}
	return exitFailed
}

// serve loads the settings, with flags over them, and runs the server.
func serve(env environment, path, data, listen string) error {
	reread := func() (config, error) { return settingsFor(path, data, listen) }
	cfg, err := reread()
	if err != nil {
		return err
	}
	syscall.Umask(0o077)           // what is stored is nobody else's business
	signal.Ignore(syscall.SIGPIPE) // whoever reads the log may go
	makeRoomForDisk()
	return runLogged(env, cfg, reread)
}

// runLogged is run with the log that the settings want.
func runLogged(env environment, cfg config, reread func() (config, error)) error {
	log := logbook.New(env.stderr)
	defer log.Close()
	log.Configure(cfg.logOptions())
	slog.SetDefault(slog.New(log.Handler()))
	return run(env, cfg, log, reread)
}

// makeRoomForDisk lets a few more goroutines run at once than there are cores. A
// goroutine that waits for a slow disk, or reads much from the database, keeps a
// place at a core for 10 ms and more; those who chat need not wait behind it.
func makeRoomForDisk() {
	const forDisk = 2
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + forDisk)
	}
}

// run serves until env.ctx ends or somebody types EXIT.
func run(env environment, cfg config, log *logbook.Log, reread func() (config, error)) (ended error) {
	ctx, stop := context.WithCancel(env.ctx)
	defer stop()
	hangups := make(chan os.Signal, 1)
	if env.stdin == nil { // where there is a terminal, its end is the server's too
		signal.Notify(hangups, syscall.SIGHUP)
		defer func() {
			if errors.Is(ended, errRestart) {
				signal.Ignore(syscall.SIGHUP) // none may end the program, which goes on
			} else {
				signal.Stop(hangups)
			}
		}()
	}
	srv, err := newServer(cfg, env.ask)
	if err != nil {
		return store.ExplainFull(err)
	}
	srv.log, srv.reread, srv.program = log, reread, env.program
	if err := srv.listen(ctx); err != nil {
		return errors.Join(err, srv.stop("the server is stopping"))
	}
	slog.Info(listeningText(srv.doorway.listener.Addr()))
	srv.sayTLS()
	srv.sayWeb()
	srv.sayClosed()
	srv.beFound()
	for _, l := range cfg.laterListeners() {
		slog.Warn("this version does not listen there yet", "setting", l.key, "address", l.address)
	}
	accepting := make(chan error, 1)
	go func() { accepting <- srv.accept() }()
	manager := newNotifier()
	manager.tell("READY=1")
	if manager.watchdog > 0 {
		srv.life.run(func(stop <-chan struct{}) { srv.feedWatchdog(manager, stop) })
	}
	if env.stdin != nil {
		signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU) // in the background the server goes on
		fmt.Fprintln(env.stdout, keyboardGreeting)
		go srv.keyboard(env.stdin, env.stdout, stop)
	}
	end := srv.serveUntil(ctx, hangups)
	if !errors.Is(end.err, errRestart) {
		manager.tell("STOPPING=1")
	}
	return end.outcome(errors.Join(srv.stop(end.why), <-accepting))
}

// serveUntil waits for the end: the program is told to stop, the disk fails, or an
// administrator orders it.
func (srv *server) serveUntil(ctx context.Context, hangups <-chan os.Signal) ending {
	for {
		select {
		case <-ctx.Done():
			return ending{why: "the server is stopping"}
		case cause := <-srv.life.diskFailed:
			slog.Error("the disk failed: nothing is saved any more, and the server ends so that it is started afresh", "error", cause)
			return ending{"the server is stopping", errReported}
		case <-hangups:
			_, _ = srv.reload("SIGHUP") // the log has what came of it
		case o := <-srv.life.orders:
			if end, ok := srv.obey(ctx, o); ok {
				return end
			}
		}
	}
}
