// Homeroom is a chat server in one file: rooms, private messages and threaded
// message groups for telnet and programs (README.md, docs/PROTOCOL.md).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// subcommand is one word after homeroom.
type subcommand struct {
	name, args, help string
	run              func(env environment, flags *flag.FlagSet, args []string) int
}

// environment is what a command line has around it.
type environment struct {
	ctx            context.Context // ends when the process is told to
	stdin          io.Reader       // nil: not a terminal
	ask            asker           // nil: not a terminal
	stdout, stderr io.Writer
}

// subcommands is every command of the program; serve is the default.
func subcommands() []subcommand {
	return []subcommand{
		{"serve", "", "run the server (this is what homeroom does without a command)", runServe},
		{"backup", "FILE", "write what is stored to a file, while the server runs or not", runBackup},
		{"restore", "FILE", "put a backup into the data folder (stop the server first)", runRestore},
		{"check", "", "check everything that is stored", runCheck},
		{"key", "rotate", "rotate: seal what is stored with a new key (stop the server first)", runKey},
		{"install", "", "make it a service that starts at boot, or upgrade that (as root)", runInstall},
		{"uninstall", "", "take the service away; keeps what it has stored, without -purge", runUninstall},
		{"start", "", "start the service", runStart},
		{"stop", "", "stop the service until the next boot", runStop},
		{"restart", "", "start the service anew", runRestart},
		{"logs", "", "show the last lines of the service's log", runLogs},
		{"admin", "add NAME | remove NAME | list", "make an administrator; also: admin remove NAME, admin list", runAdmin},
		{"console", "", "administer the running server from this terminal, or with -c LINE", runConsole},
		{"stats", "", "show how the running server is", runStats},
		{"reload", "", "have the running server read its settings anew", runReload},
		{"status", "", "tell whether a server runs on the data folder, and its TLS certificate", runStatus},
		{"find", "", "list the servers on this network", runFind},
		{"config", "", "print the settings file with every setting and its default", runConfig},
		{"version", "", "print the version, and what this program was built from", runVersion},
		{"help", "", "print this", runHelp},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env := environment{ctx: ctx, stdout: os.Stdout, stderr: os.Stderr}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		env.stdin, env.ask = os.Stdin, askTerminal(ctx, os.Stdin)
	}
	code := runMain(env, os.Args[1:])
	stop()
	os.Exit(code)
}

// runMain finds the command in a command line and runs it.
func runMain(env environment, args []string) int {
	name := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	} else if len(args) > 0 && strings.Trim(args[0], "-") == "help" {
		return runHelp(env, nil, nil)
	}
	for _, c := range subcommands() {
		if c.name == name {
			flags := flag.NewFlagSet("homeroom "+name, flag.ContinueOnError)
			flags.SetOutput(env.stderr)
			flags.Usage = func() {
				fmt.Fprintf(env.stderr, "homeroom %s: %s\nusage: homeroom %s\n", name, c.help, strings.TrimSpace(name+" [flags] "+c.args))
				flags.PrintDefaults()
			}
			return c.run(env, flags, args)
		}
	}
	fmt.Fprintf(env.stderr, "homeroom: there is no command %q; did you mean %q? `homeroom help` shows all\n", name, nearest(name))
	return exitUsage
}

// nearest is the command whose name takes the fewest changes to get to.
func nearest(name string) string {
	best, least := "", 1<<30
	for _, c := range subcommands() {
		if d := editDistance(name, c.name); d < least {
			best, least = c.name, d
		}
	}
	return best
}

// editDistance is how many letters have to be added, taken or replaced.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// parse reads a command's flags, which may stand before its arguments and behind
// them; done is set where there is nothing left to do.
func parse(flags *flag.FlagSet, args []string, most int) (code int, done bool) {
	var words []string
	err := flags.Parse(args)
	for err == nil && flags.NArg() > 0 {
		rest := flags.Args()
		if flagsEnd := len(args) - len(rest); flagsEnd > 0 && args[flagsEnd-1] == "--" {
			words = append(words, rest...)
			break
		}
		words, args = append(words, rest[0]), rest[1:]
		err = flags.Parse(args)
	}
	if err == nil {
		err = flags.Parse(append([]string{"--"}, words...))
	}
	if errors.Is(err, flag.ErrHelp) {
		return exitDone, true
	}
	if err != nil {
		return exitUsage, true
	}
	if flags.NArg() > most {
		fmt.Fprintf(flags.Output(), "%s: too many arguments: %s\n", flags.Name(), strings.Join(flags.Args()[most:], " "))
		return exitUsage, true
	}
	return exitDone, false
}

func runHelp(env environment, _ *flag.FlagSet, _ []string) int {
	fmt.Fprintln(env.stdout, "homeroom: a chat server in one file. usage: homeroom COMMAND [flags]")
	for _, c := range subcommands() {
		fmt.Fprintf(env.stdout, "  %-9s %s\n", c.name, c.help)
	}
	fmt.Fprintf(env.stdout, "Settings are read from -config FILE, else from chat.toml here; without both, all commands\n"+
		"but serve take the service's: %s.\n`homeroom COMMAND -h` explains a command.\n", installedSettings)
	return exitDone
}

func runConfig(env environment, flags *flag.FlagSet, args []string) int {
	if code, done := parse(flags, args, 0); done {
		return code
	}
	fmt.Fprint(env.stdout, sampleConfig)
	return exitDone
}

// runServe runs the server until it is told to stop.
func runServe(env environment, flags *flag.FlagSet, args []string) int {
	path := flags.String("config", "", "settings `FILE` (default: chat.toml here, if there is one)")
	data := flags.String("data", "", "`DIR` for everything that is written (server.data)")
	listen := flags.String("listen", "", "`ADDR`ess and port (server.listen)")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	err := serve(env, *path, *data, *listen)
	if err == nil {
		return exitDone
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintf(env.stderr, "homeroom: %v\n", oneLine(err))
	}
	return exitFailed
}

// errReported is a failure whose reason is in the log already.
var errReported = errors.New("see the log")

// oneLine joins the lines of an error that has several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

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
	told := make(chan os.Signal, 1) // holds the first signal to end
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(told)
	err = runLogged(env, cfg, reread)
	if errors.Is(err, errRestart) {
		return startAnew(told, env.stdin == nil)
	}
	return err
}

// runLogged is run with the log that the settings want.
func runLogged(env environment, cfg config, reread func() (config, error)) error {
	log := newServerLog(env.stderr)
	defer log.close()
	log.configure(&cfg)
	slog.SetDefault(slog.New(log.handler()))
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

// settingsFor loads the settings, with flags over them where they are given.
func settingsFor(path, data, listen string) (config, error) {
	cfg, err := loadConfig(path)
	if err != nil {
		return cfg, err
	}
	if data != "" {
		cfg.Server.Data = data
	}
	if listen != "" {
		cfg.Server.Listen = listen
	}
	if bad := cfg.check(); bad != nil {
		return cfg, bad
	}
	return cfg, nil
}

// run serves until env.ctx ends or somebody types EXIT.
func run(env environment, cfg config, log *serverLog, reread func() (config, error)) (ended error) {
	ctx, stop := context.WithCancel(env.ctx)
	defer stop()
	hangups := make(chan os.Signal, 1)
	if env.stdin == nil { // where there is a terminal, its end is the server's too
		signal.Notify(hangups, syscall.SIGHUP)
		defer func() {
			if !errors.Is(ended, errRestart) { // else none may end the program, which goes on
				signal.Stop(hangups)
			}
		}()
	}
	srv, err := newServer(cfg, env.ask)
	if err != nil {
		return explainFull(err)
	}
	srv.log, srv.reread = log, reread
	if err := srv.listen(ctx); err != nil {
		return errors.Join(err, srv.stop("the server is stopping"))
	}
	slog.Info(listeningText(srv.listener.Addr()))
	srv.sayTLS()
	srv.sayWeb()
	srv.beFound(ctx)
	for _, l := range cfg.laterListeners() {
		slog.Warn("this version does not listen there yet", "setting", l.key, "address", l.address)
	}
	accepting := make(chan error, 1)
	go func() { accepting <- srv.accept() }()
	manager := newNotifier()
	manager.tell("READY=1")
	if manager.watchdog > 0 {
		srv.background.Go(func() { srv.feedWatchdog(manager, srv.stopBackground) })
	}
	if env.stdin != nil {
		go srv.keyboard(env.stdin, env.stdout, stop)
	}
	end := srv.serveUntil(ctx, hangups)
	if !errors.Is(end.err, errRestart) {
		manager.tell("STOPPING=1")
	}
	return end.outcome(errors.Join(srv.stop(end.why), <-accepting))
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

// serveUntil waits for the end: the program is told to stop, the disk fails, or an
// administrator orders it.
func (srv *server) serveUntil(ctx context.Context, hangups <-chan os.Signal) ending {
	for {
		select {
		case <-ctx.Done():
			return ending{why: "the server is stopping"}
		case cause := <-srv.diskFailed:
			slog.Error("the disk failed: nothing is saved any more, and the server ends so that it is started afresh", "error", cause)
			return ending{"the server is stopping", errReported}
		case <-hangups:
			_, _ = srv.reload("SIGHUP") // the log has what came of it
		case o := <-srv.orders:
			if end, ok := srv.obey(ctx, o); ok {
				return end
			}
		}
	}
}

// listeningText says where the server listens and what to type to get there.
func listeningText(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return "listening on " + a.String()
	}
	var try []string
	for _, host := range reachable(tcp.IP) {
		try = append(try, telnetTo(host, strconv.Itoa(tcp.Port)))
	}
	return fmt.Sprintf("listening on %s; to connect: %s", a, strings.Join(try, " or "))
}

// telnetTo is what to type to get to a server.
func telnetTo(host, port string) string { return "telnet " + host + " " + port }

// reachable is the addresses under which a listener can be reached: the one it
// has, or this machine's where it listens on all.
func reachable(ip net.IP) []string {
	if !ip.IsUnspecified() {
		return []string{ip.String()}
	}
	var hosts []string
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			hosts = append(hosts, n.IP.String())
		}
	}
	if len(hosts) == 0 {
		return []string{"127.0.0.1"}
	}
	return hosts
}
