package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// helpText is the text that HELP shows; exit says what EXIT does.
func helpText(exit string) string {
	return `Plain text goes to everybody. Commands:
  HELP                  this text; #help shows the server's commands
  LIST_USERS            who is logged in, from where, and where they are
  KICK <user> [reason]  end a user's connection
  EXIT                  ` + exit + `
  #...                  any command of the server: #stats, #ban, #watchlog on
`
}

// What HELP shows in a console, and at the server's own keyboard.
var (
	consoleHelp  = helpText("leave the console; the server goes on")
	keyboardHelp = helpText("stop the server")
)

// console is a terminal, or a script, at a server's control socket. One
// connection asks; another one hears the announcements and the log.
type console struct {
	asks, hears *operator
	help        string
	people      bool   // somebody types, who can be asked
	doubt       string // the word that somebody is being asked about

	mu  sync.Mutex // lines come from two goroutines
	out io.Writer
}

// runConsole is "homeroom console".
func runConsole(env environment, flags *flag.FlagSet, args []string) int {
	find := folderFlags(flags, needsServer)
	line := flags.String("c", "", "do this one `LINE` and end; the exit code says whether it was done")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	t, err := find()
	if err != nil {
		return report(env, err)
	}
	c := &console{out: env.stdout, help: consoleHelp}
	if c.asks, err = dialOperator(env.ctx, t.folder()); err != nil {
		return t.report(env, err)
	}
	defer c.asks.close()
	t.sayFolder(env.stderr) // a script reads the answers
	given := false
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == "c" })
	switch {
	case given:
		err = c.script(strings.NewReader(*line))
	case env.stdin == nil:
		err = c.script(os.Stdin)
	default:
		err = c.terminal(env, t.folder())
	}
	return t.report(env, err)
}

// keyboardGreeting is shown at a start in a terminal.
const keyboardGreeting = "What you type here goes to everybody. HELP shows the commands, EXIT stops the server."

// foreground reads a terminal while the program is in its foreground, and waits while
// the shell has it in the background, where a read fails (SIGTTIN is ignored).
type foreground struct{ terminal *os.File }

func (f foreground) Read(p []byte) (int, error) {
	const pause, most = time.Second, 3 // fg need not wake a program that runs already
	for failed := 0; ; time.Sleep(pause) {
		n, err := f.terminal.Read(p)
		if n > 0 || !errors.Is(err, syscall.EIO) {
			return n, err
		}
		group, gone := unix.IoctlGetInt(int(f.terminal.Fd()), unix.TIOCGPGRP)
		if group == unix.Getpgrp() {
			failed++
		}
		if gone != nil || failed == most {
			return n, err // it is broken, or gone
		}
	}
}

// keyboard is the console at the server's own terminal; stop is called on EXIT.
// Each line has a connection of its own: nobody reads in between what the server
// says by itself, and the log is on the same terminal.
func (srv *server) keyboard(in io.Reader, out io.Writer, stop func()) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	c := &console{out: out, help: keyboardHelp, people: true}
	for lines.Scan() {
		c.asks = srv.operator()
		_, leave, err := c.line(lines.Text())
		c.asks.close()
		if leave {
			stop()
			return
		}
		if err != nil {
			c.print(err.Error() + "\n")
		}
	}
}

// errNotDone says that a line of a script was refused; the reason was shown.
var errNotDone = errors.New("not everything was done")

// script does lines until they end. It fails if one of them was refused.
func (c *console) script(in io.Reader) error {
	var failed error
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		done, leave, err := c.line(lines.Text())
		if err != nil || leave {
			return errors.Join(err, failed)
		}
		if !done {
			failed = errNotDone
		}
	}
	return errors.Join(lines.Err(), failed)
}

// terminal does the lines that somebody types, until EXIT, the end of the input, or the
// server's.
func (c *console) terminal(env environment, folder string) error {
	var err error
	if c.hears, err = dialOperator(env.ctx, folder); err != nil {
		return err
	}
	defer c.hears.close()
	fd := int(os.Stdin.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return fmt.Errorf("taking over the terminal: %w", err)
	}
	defer func() { _ = term.Restore(fd, before) }()
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{os.Stdin, os.Stdout}, "homeroom> ")
	if width, height, err := term.GetSize(fd); err == nil && width > 0 {
		_ = t.SetSize(width, height)
	}
	t.AutoCompleteCallback = c.complete
	c.out, c.people = t, true
	c.print("HELP shows what there is; EXIT leaves the console. Tab completes commands and names; the arrows bring lines back.\n")
	ended := make(chan error, 2)
	go func() { ended <- c.hear() }()
	go func() { ended <- c.typed(t) }()
	select {
	case err = <-ended:
	case <-env.ctx.Done():
	}
	return err
}

// typed does the lines that somebody types.
func (c *console) typed(t *term.Terminal) error {
	for {
		line, err := t.ReadLine()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, term.ErrPasteIndicator) {
			return fmt.Errorf("reading the terminal: %w", err)
		}
		if _, leave, err := c.line(line); err != nil || leave {
			return err
		}
	}
}

// hear shows announcements, warnings and the log, until the server ends.
func (c *console) hear() error {
	for {
		line, err := c.hears.read()
		if err != nil {
			return errors.New("the server has ended")
		}
		if text := heardText(line); text != "" {
			c.print(text + "\n")
		}
	}
}

// heardText is how a line that nobody asked for is shown; "": not at all.
func heardText(line string) string {
	words := splitWords(line, nil)
	switch {
	case strings.HasPrefix(line, "@mess #hello"):
		return ""
	case len(words) == 4 && words[1] == "#announce":
		return words[2] + " to all: " + words[3]
	case len(words) == 3 && words[0] == "@mess":
		return words[2] // a warning, or a line of the log
	case strings.HasPrefix(line, "@status "):
		return ""
	}
	return line
}

// print shows text.
func (c *console) print(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = io.WriteString(c.out, text) // where nobody sees it, nobody needs it
}

// line does one line. done is whether the server did it; err means that it is
// gone.
func (c *console) line(line string) (done, leave bool, err error) {
	line = strings.TrimSpace(cleanLine([]byte(line)))
	words := splitWords(line, nil)
	if c.doubt != "" {
		if sent, err := c.resolve(line); sent || err != nil || len(words) == 0 {
			return sent, false, err
		}
	}
	if len(words) == 0 {
		return true, false, nil
	}
	switch verb := strings.ToUpper(words[0]); {
	case verb == "EXIT" && len(words) == 1:
		return true, true, nil
	case verb == "HELP" && len(words) == 1:
		c.print(c.help)
		return true, false, nil
	case verb == "LIST_USERS" && len(words) == 1:
		line = "#who"
	case words[0] == "KICK" || verb == "KICK" && len(words) == 2:
		if len(words) == 1 {
			c.print("KICK takes a user's name\n")
			return false, false, nil
		}
		line = "#kick " + strings.TrimSpace(line[len("KICK"):])
	case !strings.HasPrefix(line, "#") && len(words) == 1 && c.likeCommand(words[0]):
		c.askAbout(words[0])
		return false, false, nil
	case !strings.HasPrefix(line, "#"):
		line = string(appendQuoted([]byte("#announce "), line))
	case strings.EqualFold(words[0], "#watchlog") && c.hears != nil:
		return true, false, c.hears.send(line)
	case c.needsRoom(words[0]):
		c.show(line, answer{status: statusNoGuests})
		return false, false, nil
	}
	a, err := c.asks.ask(line)
	if err != nil {
		return false, false, err
	}
	c.show(line, a)
	return a.ok(), false, nil
}

// likeCommand reports whether somebody who types a lone word may have meant a command,
// of this server, of this program, or of a shell.
func (c *console) likeCommand(word string) bool {
	const shell = " q bye exit quit logout logoff close end stop start halt kill ls ll dir cd pwd ps top htop cat man su sudo clear cls history " +
		"id whoami w who users user list info date uptime exit() quit() :q :q! :wq ? cmd bash sh vi vim nano ssh telnet ping "
	word = strings.ToLower(word)
	known := c.asks.table["#"+word] != nil || strings.HasPrefix(word, "/") || strings.Contains(shell, " "+word+" ")
	return known || slices.ContainsFunc(subcommands(), func(s subcommand) bool { return s.name == word })
}

// askAbout asks whether everybody is to read a word that looks like a command; where
// nobody can answer, it only says so.
func (c *console) askAbout(word string) {
	hint := "HELP shows those that there are."
	switch row := c.asks.table["#"+strings.ToLower(word)]; {
	case strings.Contains(" quit q /q /quit bye stop logout close end exit() quit() ", " "+strings.ToLower(word)+" "):
		hint = "did you mean EXIT?"
	case row != nil && row.host:
		hint = "did you mean " + row.name + "?"
	}
	if !c.people {
		c.print(fmt.Sprintf("%s looks like a command and is not announced; %s #announce %s announces it\n", word, hint, word))
		return
	}
	c.doubt = word
	c.print(fmt.Sprintf("%s looks like a command; %s Is everybody to read %q? Type y or n\n", word, hint, word))
}

// resolve takes the answer to askAbout. What is no answer is a line like any other.
func (c *console) resolve(line string) (answered bool, err error) {
	word := c.doubt
	c.doubt = ""
	switch strings.ToLower(line) {
	case "y", "yes":
		announce := string(appendQuoted([]byte("#announce "), word))
		a, err := c.asks.ask(announce)
		if err == nil {
			c.show(announce, a)
		}
		return true, err
	case "n", "no", "":
		c.print("not announced\n")
		return true, nil
	}
	return false, nil
}

// needsRoom reports whether a command does not work in the console. The server would say
// so too, but not before the lines of a #postmessage have come.
func (c *console) needsRoom(word string) bool {
	row := c.asks.table[strings.ToLower(word)]
	return row != nil && !row.host
}

// show shows an answer.
func (c *console) show(line string, a answer) {
	switch {
	case !a.ok():
		c.print(splitWords(line, nil)[0] + ": " + a.reason() + "\n")
	case c.hears == nil && strings.EqualFold(splitWords(line, nil)[0], "#announce"): // else it is heard
		c.print("everybody was told: " + strings.Join(splitWords(line, nil)[1:], " ") + "\n")
	case line == "#who":
		c.print(userTable(a.lines))
	case len(a.lines) > 0:
		c.print(strings.Join(a.lines, "\n") + "\n")
	case a.head != "":
		c.print(strings.TrimPrefix(a.head, "@ret ") + "\n")
	}
}

// userTable shows the lines of #who for people to read.
func userTable(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		if w := splitWords(line, nil); len(w) >= 4 {
			fmt.Fprintf(&b, "%s (%s) in %s, from %s\n", w[0], w[1], w[3], w[2])
		}
	}
	fmt.Fprintf(&b, "%d logged in\n", len(lines))
	return b.String()
}

// complete completes the word before the cursor when somebody hits Tab.
func (c *console) complete(line string, pos int, key rune) (newLine string, newPos int, ok bool) {
	if key != '\t' {
		return "", 0, false
	}
	start := strings.LastIndexAny(line[:pos], " \t") + 1
	begun := line[start:pos]
	choices := c.choices(begun, start == 0)
	if len(choices) == 0 {
		return line, pos, true
	}
	whole := commonStart(choices)
	if len(choices) == 1 {
		whole += " "
	} else if len(whole) == len(begun) {
		c.print(strings.Join(choices, "  ") + "\n")
	}
	return line[:start] + whole + line[pos:], start + len(whole), true
}

// choices are the words that a begun one may become: a command at the start of a
// line, a name elsewhere.
func (c *console) choices(begun string, first bool) (choices []string) {
	var all []string
	if first {
		all = []string{"HELP", "LIST_USERS", "KICK", "EXIT"}
		for _, row := range commandRows() {
			if row.host {
				all = append(all, row.name)
			}
		}
	} else {
		all = c.names(begun)
	}
	for _, word := range all {
		if len(word) >= len(begun) && strings.EqualFold(word[:len(begun)], begun) && !slices.Contains(choices, word) {
			choices = append(choices, word)
		}
	}
	return choices
}

// names are those of everybody who is logged in, and of some accounts from a name on.
func (c *console) names(from string) (names []string) {
	for _, line := range []string{"#who", string(appendQuoted([]byte("#accounts "), from)) + " 20"} {
		a, err := c.asks.ask(line)
		if err != nil {
			return names
		}
		for _, l := range a.lines {
			names = append(names, splitWords(l, nil)[0])
		}
	}
	return names
}

// commonStart is the longest start that all words have in common, without regard to
// case, as the first of them writes it.
func commonStart(words []string) string {
	common := words[0]
	for _, w := range words[1:] {
		n := min(len(common), len(w))
		for !strings.EqualFold(common[:n], w[:n]) {
			n--
		}
		common = common[:n]
	}
	return common
}
