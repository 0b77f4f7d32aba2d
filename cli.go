package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/term"

	"homeroom/datadir"
	"homeroom/service"
	"homeroom/store"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRestart = 3 // the service manager is to start the server anew
)

// subcommand is one word after homeroom.
type subcommand struct {
	name, args, help string
	run              func(env environment, flags *flag.FlagSet, args []string) int
}

// environment is the process around a command line.
type environment struct {
	ctx            context.Context // ends when the process is told to
	program        string          // its file, by the name that it was started by; "": it is not known
	letGo          func()          // from then on a signal to end is not for ctx
	stdin          io.Reader       // nil: not a terminal
	ask            store.Asker     // nil: not a terminal
	stdout, stderr io.Writer
}

// subcommands is every command of the program; serve is the default.
func subcommands() []subcommand {
	return []subcommand{
		{"serve", "", "run the server (this is what homeroom does without a command)", runServe},
		{"backup", "FILE", "write a snapshot of what is stored to a file; the server may run", runBackup},
		{"restore", "FILE", "put a backup into the data folder (stop the server first)", runRestore},
		{"check", "", "check the database and every record in it", runCheck},
		{"key", "rotate", "rotate: seal what is stored with a new key (stop the server first)", runKey},
		{"install", "", "make this program a service that starts at boot, or upgrade that (as root)", runInstall},
		{"uninstall", "", "remove the service; what it has stored stays, without -purge", runUninstall},
		{"start", "", "start the service", runControl("start")},
		{"stop", "", "stop the service until the next boot", runControl("stop")},
		{"restart", "", "restart the service", runControl("restart")},
		{"logs", "", "show the last lines of the service's log", runLogs},
		{"admin", "add NAME | remove NAME | list", "make an administrator; also: admin remove NAME, admin list", runAdmin},
		{"console", "", "administer the running server from this terminal, or with -c LINE", runConsole},
		{"stats", "", "show how the running server is doing", runStats},
		{"reload", "", "make the running server reread its settings", runReload},
		{"status", "", "say whether the server runs, how to connect to it, and which TLS certificate it shows", runStatus},
		{"find", "", "list the servers on this network", runFind},
		{"config", "", "print the settings file with every setting and its default", runConfig},
		{"version", "", "print the version, and what this program was built from", runVersion},
		{"licenses", "", "print the licences of everything in this program", runLicenses},
		{"help", "", "print this", runHelp},
	}
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
	fmt.Fprintf(env.stdout, "All commands but serve act on the installed service (%s), and on a server of your own\n"+
		"only where there is none, or where -config FILE or -data DIR says so.\n`homeroom COMMAND -h` explains a command.\n", service.SettingsFile)
	return exitDone
}

func runConfig(env environment, flags *flag.FlagSet, args []string) int {
	if code, done := parse(flags, args, 0); done {
		return code
	}
	fmt.Fprint(env.stdout, sampleConfig)
	return exitDone
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

// folderFlags declares the flags of every command that works on a data folder,
// and returns a function that finds that folder with them.
func folderFlags(flags *flag.FlagSet, n need) func() (target, error) {
	path := flags.String("config", "", "settings `FILE` (default: the installed service's; without a service, chat.toml here)")
	data := flags.String("data", "", "the data folder `DIR` (server.data)")
	return func() (target, error) {
		syscall.Umask(0o077) // what is written is nobody else's business
		t, err := findTarget(*path, *data, n)
		if err == nil {
			err = datadir.BecomeOwner(t.folder())
		}
		return t, err
	}
}

// report says how a command that acted on a folder went; an error names the folder.
func (t *target) report(env environment, err error) int {
	if err != nil && !strings.Contains(err.Error(), t.folder()) {
		err = fmt.Errorf("%w (data folder %s)", err, t.folder())
	}
	return report(env, err)
}

// report says how a command went, and returns its exit code.
func report(env environment, err error) int {
	if err != nil {
		fmt.Fprintf(env.stderr, "homeroom: %v%s\n", oneLine(store.ExplainFull(err)), rootHint(err))
		return exitFailed
	}
	return exitDone
}

// rootHint is added to an error that root would not get.
func rootHint(err error) string {
	if errors.Is(err, fs.ErrPermission) && os.Getuid() != 0 {
		return "; for the installed service, use sudo; for another server, say -config FILE or -data DIR"
	}
	return ""
}

// askTerminal asks for passphrases without showing what is typed, until ctx ends.
func askTerminal(ctx context.Context, terminal *os.File) store.Asker {
	return func(prompt string) (string, error) {
		fd := int(terminal.Fd())
		before, err := term.GetState(fd)
		if err != nil {
			return "", err
		}
		fmt.Fprint(os.Stderr, prompt)
		defer fmt.Fprintln(os.Stderr)
		typed := make(chan error, 1)
		var answer []byte
		go func() {
			var err error
			answer, err = term.ReadPassword(fd)
			typed <- err
		}()
		select {
		case err := <-typed:
			return string(answer), err
		case <-ctx.Done(): // a terminal cannot be woken, but it can be given back as it was
			return "", errors.Join(context.Cause(ctx), term.Restore(fd, before))
		}
	}
}
