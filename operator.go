package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"homeroom/datadir"
	"homeroom/service"
	"homeroom/store"
)

// operator is a program's end of a server's control socket.
type operator struct {
	conn  net.Conn
	in    *bufio.Reader
	table map[string]*command
}

// answer is the server's answer to one line.
type answer struct {
	status status
	why    string   // the warning that came with a status; "": none did
	head   string   // the @ret line; "": it was @status
	lines  []string // that belong to it
}

// ok reports whether the command was done.
func (a answer) ok() bool { return a.head != "" || a.status == statusOK }

// errNoServer says that no server runs on a data folder.
var errNoServer = errors.New("no server runs on that data folder")

// noServer is errNoServer with advice.
func noServer(folder string) error {
	return fmt.Errorf("%w (%s); start it, or name the folder that it uses with -data", errNoServer, folder)
}

// operatorPatience bounds how long a server may take for one answer.
const operatorPatience = 60 * time.Second

// dialOperator connects to the server that runs on a data folder. It fails with
// errNoServer where none does.
func dialOperator(ctx context.Context, folder string) (*operator, error) {
	if info, err := os.Lstat(filepath.Join(folder, controlFile)); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is no socket, and nothing is followed there; remove it, and start the server anew", filepath.Join(folder, controlFile))
	}
	path, release, err := socketPath(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noServer(folder)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to the server: %w", err)
	}
	defer release()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, noServer(folder)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to the server: %w", err)
	}
	return newOperator(conn), nil
}

// openOperator connects to the server that runs on a data folder or, where none
// does, to one in this process that listens nowhere. close ends that.
// A database that is not there is made after calling made; nil: it is an error.
func openOperator(env environment, t *target, made func()) (o *operator, closeAll func() error, err error) {
	cfg := t.cfg
	o, err = dialOperator(env.ctx, cfg.Server.Data)
	if err == nil || !errors.Is(err, errNoServer) {
		return o, func() error { return o.close() }, err
	}
	if t.fault != nil {
		return nil, nil, t.fault
	}
	if !exists(filepath.Join(cfg.Server.Data, store.DatabaseFile)) {
		if made == nil {
			return nil, nil, fmt.Errorf("there is no database in %s; the first start of the server makes one", cfg.Server.Data)
		}
		made()
	}
	slog.SetLogLoggerLevel(slog.LevelWarn) // it is no server that anybody watches
	srv, err := newServer(cfg, env.ask)
	if err != nil {
		return nil, nil, err
	}
	o = srv.operator()
	return o, func() error {
		return errors.Join(o.close(), srv.stop("the command is done"), datadir.GiveToOwner(cfg.Server.Data))
	}, nil
}

// operator is an operator of this server, over a pipe.
func (srv *server) operator() *operator {
	near, far := net.Pipe()
	srv.serveHost(far)
	return newOperator(near)
}

func newOperator(conn net.Conn) *operator {
	return &operator{conn: conn, in: bufio.NewReader(conn), table: commandTable()}
}

func (o *operator) close() error { return o.conn.Close() }

// ask sends one line, which must hold one command, and reads the answer.
func (o *operator) ask(line string) (answer, error) {
	if err := o.conn.SetDeadline(time.Now().Add(operatorPatience)); err != nil {
		return answer{}, fmt.Errorf("asking the server: %w", err)
	}
	if err := o.send(line); err != nil {
		return answer{}, err
	}
	return o.answer()
}

// send sends one line.
func (o *operator) send(line string) error {
	if strings.ContainsAny(line, "\r\n") || strings.TrimSpace(line) == "" {
		return errors.New("asking the server: that is not one line")
	}
	if _, err := o.conn.Write([]byte(line + "\r\n")); err != nil {
		return fmt.Errorf("asking the server: %w", err)
	}
	return nil
}

// reason says, for people, why a command was not done.
func (a answer) reason() string {
	return fmt.Sprintf("%s (%d)", cmp.Or(a.why, a.status.text()), a.status)
}

// refusedError says that the server did not do something, and why.
type refusedError struct {
	doing string
	answer
}

func (e *refusedError) Error() string { return e.doing + ": " + e.reason() }

// do asks for something and fails if it is not done.
func (o *operator) do(line, doing string) error {
	a, err := o.ask(line)
	if err == nil && !a.ok() {
		err = &refusedError{doing, a}
	}
	return err
}

// answer reads one answer.
func (o *operator) answer() (a answer, err error) {
	for {
		line, err := o.read()
		if err != nil {
			return a, err
		}
		if code, ok := strings.CutPrefix(line, "@status "); ok {
			n, err := strconv.Atoi(code)
			if err != nil {
				return a, fmt.Errorf("the server answered %q", line)
			}
			a.status = status(n)
			return a, nil
		}
		if strings.HasPrefix(line, "@ret ") {
			a.head, a.why = line, ""
			break
		}
		if words := splitWords(line, nil); len(words) == 3 && words[1] == "#warning" {
			a.why = words[2]
		}
	}
	for range o.linesAfter(a.head) {
		line, err := o.read()
		if err != nil {
			return a, err
		}
		a.lines = append(a.lines, line)
	}
	return a, nil
}

// linesAfter is how many lines follow an @ret line.
func (o *operator) linesAfter(head string) int {
	words := splitWords(head, nil)
	if len(words) < 2 {
		return 0
	}
	c := o.table[words[1]]
	if c == nil || c.countAt == 0 || c.countAt >= len(words) {
		return 0
	}
	n, _ := strconv.Atoi(words[c.countAt])
	return n
}

// read reads one line, whatever it is, and waits no longer than the deadline that
// the connection has.
func (o *operator) read() (string, error) {
	line, err := o.in.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the server's answer did not come: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

// target is what a command acts on: a data folder, and the settings that belong to it.
type target struct {
	cfg     config // server.data is a whole path
	file    string // its settings; "": none were read
	fault   error  // of that file; then the folder alone is sure
	service bool   // it is the installed service's
}

// folder is the data folder.
func (t *target) folder() string { return t.cfg.Server.Data }

// sayFolder says which folder was acted on.
func (t *target) sayFolder(w io.Writer) { fmt.Fprintf(w, "data folder  %s\n", t.folder()) }

// need is what a command must have.
type need uint8

const (
	needsServer   need = iota // a running server
	needsFolder               // a data folder, whether a server runs on it or not
	needsSettings             // the same, and settings without a fault
	needsStopped              // the same, and no server on it
)

// findTarget finds what a command acts on: what the flags say, else the installed
// service, else a running server of this user's or what serve would take here.
func findTarget(file, data string, n need) (t target, err error) {
	switch {
	case file != "":
		t, err = readTarget(file, data)
	case service.Installed():
		if t, err = serviceTarget(); data != "" && (err != nil || !sameFolder(data, t.folder())) {
			t, err = hereTarget(data)
		}
	case data != "" || n == needsStopped:
		t, err = hereTarget(data)
	default:
		t, err = runningTarget(n)
	}
	if err == nil && n >= needsSettings {
		err = t.fault
	}
	return t, err
}

// readTarget reads a settings file, "" for none. If that is faulty, its folder is
// looked for nonetheless: commands must reach a server whose file has become so.
func readTarget(file, data string) (target, error) {
	t := target{cfg: defaultConfig(), file: file}
	if file != "" {
		cfg, err := settingsFor(file, data, "")
		t.cfg, t.fault = cfg, err
	}
	if t.fault != nil {
		text, err := os.ReadFile(file)
		folder, ok := folderIn(string(text))
		if data == "" && (err != nil || !ok) {
			return t, t.fault
		}
		t.cfg = defaultConfig()
		t.cfg.Server.Data = folder
	}
	if data != "" {
		t.cfg.Server.Data = data
	}
	if file == service.SettingsFile && !filepath.IsAbs(t.folder()) {
		return t, fmt.Errorf("%s: server.data must be a whole path, not %q, which would be another folder everywhere", file, t.folder())
	}
	whole, err := filepath.Abs(t.cfg.Server.Data)
	if err != nil {
		return t, fmt.Errorf("finding the data folder: %w", err)
	}
	t.cfg.Server.Data = whole
	return t, nil
}

// serviceTarget is the installed service.
func serviceTarget() (t target, err error) {
	t.cfg = defaultConfig()
	t.cfg.Server.Data = service.Data
	if exists(service.SettingsFile) {
		t, err = readTarget(service.SettingsFile, "")
		if process, _ := datadir.User(service.Data); err != nil && process != "" { // the line with the folder is the faulty one
			t, err = readTarget("", service.Data)
			_, t.fault = loadConfig(service.SettingsFile)
		}
	}
	t.file, t.service = service.SettingsFile, true
	return t, err
}

// hereTarget is what serve would take in this folder. Root is led nowhere by what
// somebody else has put there.
func hereTarget(data string) (target, error) {
	file, taken := "", defaultConfig().Server.Data
	if exists(settingsName) {
		file, taken = settingsName, settingsName
	}
	if foreign(taken) {
		if data == "" {
			return target{}, fmt.Errorf("%s here belongs to another user, and no service is installed; to use it nonetheless: -config FILE or -data DIR", taken)
		}
		file = ""
	}
	return readTarget(file, data)
}

// foreign reports whether root would be led by a file of another user's, or by
// another user's link.
func foreign(path string) bool {
	if os.Geteuid() != 0 {
		return false
	}
	for _, stat := range []func(string) (fs.FileInfo, error){os.Lstat, os.Stat} {
		info, err := stat(path)
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != 0 {
			return true
		}
	}
	return false
}

// runningTarget is the server of this user's that runs, if no service is installed:
// first of all the one of this folder. What a command could change in two places, it
// changes in none.
func runningTarget(n need) (target, error) {
	here, err := hereTarget("")
	if err == nil {
		if process, err := datadir.User(here.folder()); err != nil || process != "" {
			return here, err
		}
	}
	running := datadir.Running(controlFile)
	chosen := here.file != "" || exists(here.folder()) || err != nil
	switch {
	case len(running) == 0, chosen && n == needsSettings:
		return here, err
	case len(running) == 1 && (n == needsServer || !chosen):
		return readTarget("", running[0])
	}
	return here, fmt.Errorf("which server is meant? Servers run on %s, none on what is here; say it with -data DIR or -config FILE", strings.Join(running, ", "))
}
