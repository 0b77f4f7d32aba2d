package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"homeroom/datadir"
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
func openOperator(ctx context.Context, cfg config, ask store.Asker) (o *operator, closeAll func() error, err error) {
	o, err = dialOperator(ctx, cfg.Server.Data)
	if err == nil || !errors.Is(err, errNoServer) {
		return o, func() error { return o.close() }, err
	}
	slog.SetLogLoggerLevel(slog.LevelWarn) // it is no server that anybody watches
	srv, err := newServer(cfg, ask)
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
