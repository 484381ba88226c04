package sqltext

import (
	"io"
	"strings"
)

// GlobalKind says what a statement of pg_dumpall --globals-only does.
type GlobalKind int

const (
	Other             GlobalKind = iota // nothing that this package knows
	Session                             // SET client_encoding = ...
	MetaLine                            // \restrict ...
	CreateRole                          // Role
	AlterRole                           // Role: attributes and password
	RoleSetting                         // Role, Database: ALTER ROLE ... SET
	RoleComment                         // Role
	Membership                          // Role is granted to Member, by Grantor
	CreateTablespace                    // Tablespace, Role its owner, Location
	AlterTablespace                     // Tablespace
	TablespaceACL                       // Tablespace
	TablespaceComment                   // Tablespace
	ParameterGrant                      // GRANT SET ON PARAMETER
	SecurityLabel                       // Role or Tablespace
)

// GlobalStatement is one statement of pg_dumpall --globals-only. Names are
// unquoted, and empty where the kind has none.
type GlobalStatement struct {
	Kind       GlobalKind
	Role       string
	Member     string
	Grantor    string
	Database   string
	Tablespace string
	Location   string
	SQL        string // with its semicolon, without the comments before it; it may hold a password's verifier
}

// ParseGlobals reads the output of pg_dumpall --globals-only, of releases 13
// to 18. Statements that it does not know are Other. A script that was cut is
// fault.Integrity.
func ParseGlobals(r io.Reader) ([]GlobalStatement, error) {
	var list []GlobalStatement
	err := Split(r, func(s Statement) error {
		switch s.Kind {
		case SQL:
			g := parseGlobal(s.Body())
			g.SQL = s.Body()
			list = append(list, g)
		case Meta:
			list = append(list, GlobalStatement{Kind: MetaLine, SQL: strings.TrimRight(s.Body(), "\r\n")})
		case Rows:
			list = append(list, GlobalStatement{Kind: Other, SQL: s.Text})
		case Blank:
		}
		return nil
	})
	return list, err
}

func parseGlobal(sql string) GlobalStatement {
	c := &cursor{tokens: tokens(sql)}
	switch {
	case c.skip("set"):
		return GlobalStatement{Kind: Session}
	case c.skip("create", "role"), c.skip("create", "user"):
		return GlobalStatement{Kind: CreateRole, Role: c.name()}
	case c.skip("alter", "role"), c.skip("alter", "user"):
		return parseAlterRole(c)
	case c.skip("create", "tablespace"):
		return parseCreateTablespace(c)
	case c.skip("alter", "tablespace"):
		return GlobalStatement{Kind: AlterTablespace, Tablespace: c.name()}
	case c.skip("comment", "on", "role"):
		return GlobalStatement{Kind: RoleComment, Role: c.name()}
	case c.skip("comment", "on", "tablespace"):
		return GlobalStatement{Kind: TablespaceComment, Tablespace: c.name()}
	case c.skip("security", "label"):
		return parseLabel(c)
	case c.skip("grant"), c.skip("revoke"):
		return parseGrant(c)
	}
	return GlobalStatement{}
}

func parseAlterRole(c *cursor) GlobalStatement {
	g := GlobalStatement{Kind: AlterRole}
	if c.skip("all") {
		g.Kind = RoleSetting // of all roles
	} else {
		g.Role = c.name()
	}
	if c.skip("in", "database") {
		g.Database = c.name()
	}
	if c.skip("set") || c.skip("reset") {
		g.Kind = RoleSetting
	}
	return g
}

func parseCreateTablespace(c *cursor) GlobalStatement {
	g := GlobalStatement{Kind: CreateTablespace, Tablespace: c.name()}
	if c.skip("owner") {
		g.Role = c.name()
	}
	if c.skip("location") {
		g.Location, _ = c.peek().value()
	}
	return g
}

func parseLabel(c *cursor) GlobalStatement {
	g := GlobalStatement{Kind: SecurityLabel}
	if c.skip("for") {
		c.at++
	}
	switch {
	case c.skip("on", "role"):
		g.Role = c.name()
	case c.skip("on", "tablespace"):
		g.Tablespace = c.name()
	default:
		g.Kind = Other
	}
	return g
}

// parseGrant tells privileges, which are ON something, from memberships.
func parseGrant(c *cursor) GlobalStatement {
	start := c.at
	for c.at < len(c.tokens) && !c.peek().is("to") && !c.peek().is("from") {
		switch {
		case c.skip("on", "tablespace"):
			return GlobalStatement{Kind: TablespaceACL, Tablespace: c.name()}
		case c.skip("on", "parameter"):
			return GlobalStatement{Kind: ParameterGrant}
		case c.peek().is("on"):
			return GlobalStatement{}
		}
		c.at++
	}
	end := c.at
	c.at = start
	g := GlobalStatement{Kind: Membership, Role: c.name()}
	if c.at != end { // several roles, or REVOKE ADMIN OPTION FOR: never written by pg_dumpall
		return GlobalStatement{}
	}
	c.at++
	g.Member = c.name()
	for ; c.at < len(c.tokens); c.at++ {
		if c.skip("granted", "by") {
			g.Grantor = c.name()
		}
	}
	return g
}

// cursor walks over a statement's tokens.
type cursor struct {
	tokens []token
	at     int
}

// peek returns the next token, and one that is nothing after the last.
func (c *cursor) peek() token {
	if c.at < len(c.tokens) {
		return c.tokens[c.at]
	}
	return token{kind: punct, text: ";"}
}

// skip passes over the keywords if they all come next.
func (c *cursor) skip(keywords ...string) bool {
	if len(c.tokens)-c.at < len(keywords) {
		return false
	}
	for i, keyword := range keywords {
		if !c.tokens[c.at+i].is(keyword) {
			return false
		}
	}
	c.at += len(keywords)
	return true
}

// name passes over an identifier and returns it; it is empty if none comes.
func (c *cursor) name() string {
	name, ok := c.peek().name()
	if ok {
		c.at++
	}
	return name
}
