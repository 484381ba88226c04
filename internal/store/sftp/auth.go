package sftp

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"dbbackup/internal/fault"
)

// credentials are what one handshake proves the user with. The agent is asked
// while it lasts, so close comes after it.
type credentials struct {
	agent   net.Conn // nil without one
	signers []ssh.Signer
	secret  string
	tried   []string // what there is, for an error's text
}

func (c *credentials) close() {
	if c.agent != nil {
		_ = c.agent.Close() // it was only asked
	}
}

// credentials gathers what the options name. What was asked for by name and
// cannot be used is an error; what is only there by default is passed over.
func (o *Options) credentials() (*credentials, error) {
	c := &credentials{secret: o.Password}
	held, err := c.askAgent(o.AgentSocket)
	if err != nil {
		c.tried = append(c.tried, "no agent ("+err.Error()+")")
	}
	for _, name := range o.IdentityFiles {
		signer, err := readKey(name, held)
		if err != nil {
			c.close()
			return nil, err
		}
		c.add(name, signer)
	}
	for _, name := range o.DefaultIdentities {
		if signer, err := readKey(name, held); err == nil {
			c.add(name, signer)
		} else if !errors.Is(err, fs.ErrNotExist) {
			c.tried = append(c.tried, "not "+name)
		}
	}
	c.signers = append(c.signers, held...)
	if o.PasswordFile != "" {
		if c.secret, err = readPassword(o.PasswordFile); err != nil {
			c.close()
			return nil, err
		}
	}
	if c.secret != "" {
		c.tried = append(c.tried, "a password")
	}
	return c, nil
}

func (c *credentials) add(name string, signer ssh.Signer) {
	if signer != nil { // an encrypted key is tried as the agent's
		c.signers = append(c.signers, signer)
	}
	c.tried = append(c.tried, "key "+name)
}

func (c *credentials) askAgent(socket string) ([]ssh.Signer, error) {
	if socket == "" {
		return nil, nil
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c.agent = conn
	held, err := agent.NewClient(conn).Signers()
	if err != nil {
		return nil, err
	}
	c.tried = append(c.tried, fmt.Sprintf("an agent with %d keys", len(held)))
	return held, nil
}

// methods are the ways to log in, keys first. All keys are one method: the
// library tries each method once.
func (c *credentials) methods() []ssh.AuthMethod {
	var methods []ssh.AuthMethod
	if len(c.signers) > 0 {
		methods = append(methods, ssh.PublicKeys(c.signers...))
	}
	if c.secret != "" {
		methods = append(methods, ssh.Password(c.secret), ssh.KeyboardInteractive(c.answer))
	}
	return methods
}

// answer replies to a question that is not echoed, and to no other.
func (c *credentials) answer(_, _ string, questions []string, echos []bool) ([]string, error) {
	answers := make([]string, len(questions))
	for i, echo := range echos {
		if echo || len(questions) != 1 {
			return nil, errors.New("the server asks for more than a password")
		}
		answers[i] = c.secret
	}
	return answers, nil
}

// String says what was tried, without what is secret.
func (c *credentials) String() string {
	if len(c.tried) == 0 {
		return "nothing to log in with"
	}
	return strings.Join(c.tried, ", ")
}

// readKey reads a private key. It returns nil for one that is encrypted and
// held by the agent.
func readKey(name string, held []ssh.Signer) (ssh.Signer, error) {
	text, err := readPrivate(name)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked) && holds(held, locked.PublicKey):
		return nil, nil
	case errors.As(err, &locked):
		return nil, fault.New(fault.Precondition, "give it to ssh-agent with ssh-add "+name+" and run with its SSH_AUTH_SOCK, or use a key without passphrase",
			"private key %s is encrypted, and no agent holds it", name)
	case err != nil:
		return nil, fault.New(fault.Precondition, "name the private key, not the public one", "private key %s: %w", name, err)
	}
	return signer, nil
}

func holds(held []ssh.Signer, key ssh.PublicKey) bool {
	for _, signer := range held {
		if key != nil && string(signer.PublicKey().Marshal()) == string(key.Marshal()) {
			return true
		}
	}
	return false
}

func readPassword(name string) (string, error) {
	text, err := readPrivate(name)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fault.New(fault.Precondition, "its first line is the password", "password file %s holds none", name)
	}
	return line, nil
}

// readPrivate reads a file that no other user may read.
func readPrivate(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fault.New(fault.Precondition, "check DBBACKUP_SFTP_IDENTITY, DBBACKUP_SFTP_PASSWORD_FILE and who owns the file", "read secret: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fault.New(fault.Precondition, "run chmod 600 "+name, "%s can be read by others (mode %04o)", name, mode)
	}
	text, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return nil, fault.New(fault.Precondition, "", "read secret %s: %w", name, err)
	}
	return text, nil
}
