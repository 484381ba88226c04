package sqltext

import "strings"

// MapRoles renames roles in the statements of sql, in the places where
// pg_dump, pg_dumpall and pg_restore name one: OWNER TO, GRANT, REVOKE,
// ALTER DEFAULT PRIVILEGES, SET SESSION AUTHORIZATION, SET ROLE, the roles of
// policies, user mappings, CREATE and ALTER ROLE, and the owners in CREATE
// SCHEMA and CREATE TABLESPACE. m maps unquoted names to unquoted names; new
// names are always written quoted. PUBLIC, CURRENT_USER and their like are no
// roles. All else stays byte for byte as it was, strings and function bodies
// too. changed says whether there was something to rename.
func MapRoles(sql string, m map[string]string) (mapped string, changed bool) {
	var out strings.Builder
	done := 0
	for _, statement := range statements(sql) {
		for _, t := range roleTokens(statement) {
			if text, ok := rename(t, m); ok {
				out.WriteString(sql[done:t.at])
				out.WriteString(text)
				done = t.at + len(t.text)
			}
		}
	}
	if done == 0 {
		return sql, false
	}
	out.WriteString(sql[done:])
	return out.String(), true
}

// OwnershipStatement says whether sql holds nothing but statements about who
// owns or may do something: OWNER TO, GRANT, REVOKE, ALTER DEFAULT PRIVILEGES
// and SET or RESET SESSION AUTHORIZATION.
func OwnershipStatement(sql string) bool {
	list := statements(sql)
	for _, statement := range list {
		c := &cursor{tokens: statement}
		if !c.skip("grant") && !c.skip("revoke") && !c.skip("alter", "default", "privileges") &&
			!c.skip("set", "session", "authorization") && !c.skip("reset", "session", "authorization") &&
			ownerTo(statement) == nil {
			return false
		}
	}
	return len(list) > 0
}

// statements returns the tokens of each statement, without the semicolons.
func statements(sql string) [][]token {
	var list [][]token
	var current []token
	var nest nesting
	for _, t := range tokens(sql) {
		if !nest.step(t.kind, []byte(t.text)) {
			current = append(current, t)
			continue
		}
		if len(current) > 0 {
			list = append(list, current)
		}
		current, nest = nil, nesting{}
	}
	if len(current) > 0 {
		list = append(list, current)
	}
	return list
}

// rename returns what to write instead of t.
func rename(t token, m map[string]string) (string, bool) {
	if name, ok := t.value(); ok {
		to, ok := m[name]
		return quoteString(to), ok && to != name
	}
	name, ok := t.name()
	if !ok || name == "public" {
		return "", false
	}
	if t.kind == word {
		switch name {
		case "current_user", "current_role", "session_user", "default", "none":
			return "", false
		}
	}
	to, ok := m[name]
	return quoteName(to), ok && to != name
}

// roleTokens returns the tokens of a statement that name a role, in order.
func roleTokens(statement []token) []token {
	c := &cursor{tokens: statement}
	switch {
	case c.skip("alter", "default", "privileges"):
		return defaultPrivilegeRoles(c)
	case c.skip("grant"), c.skip("revoke"):
		return grantRoles(c)
	case c.skip("set", "session", "authorization"), c.skip("set", "role"):
		return c.take(1)
	case c.skip("create", "policy"):
		if c.find("to") {
			return c.list()
		}
	case c.skip("create", "user", "mapping"), c.skip("alter", "user", "mapping"), c.skip("drop", "user", "mapping"):
		c.skip("if", "not", "exists")
		c.skip("if", "exists")
		if c.skip("for") {
			return c.take(1)
		}
	case c.skip("create", "role"), c.skip("create", "user"), c.skip("alter", "role"), c.skip("alter", "user"):
		if !c.peek().is("all") {
			return c.take(1)
		}
	case c.skip("create", "schema"):
		if c.find("authorization") {
			return c.take(1)
		}
	case c.skip("create", "tablespace"):
		if c.find("owner") {
			return c.take(1)
		}
	}
	return ownerTo(statement)
}

// ownerTo returns the role at the end of ALTER ... OWNER TO role.
func ownerTo(statement []token) []token {
	n := len(statement)
	if n < 5 || !statement[0].is("alter") || !statement[n-3].is("owner") || !statement[n-2].is("to") {
		return nil
	}
	return statement[n-1:]
}

func defaultPrivilegeRoles(c *cursor) []token {
	var roles []token
	if c.skip("for", "role") || c.skip("for", "user") {
		roles = c.list()
	}
	for c.at < len(c.tokens) {
		if c.skip("grant") || c.skip("revoke") {
			return append(roles, grantRoles(c)...)
		}
		c.at++
	}
	return roles
}

// grantRoles reads on after GRANT or REVOKE.
func grantRoles(c *cursor) []token {
	var roles []token
	start := c.at
	privileges := c.find("on")
	if !privileges { // a membership: the roles before TO, too
		c.at = start
		if c.skip("admin") || c.skip("inherit") || c.skip("set") {
			if !c.skip("option", "for") {
				c.at = start
			}
		}
		roles = c.list()
	}
	if !c.find("to") && !c.find("from") {
		return roles
	}
	roles = append(roles, c.list()...)
	for ; c.at < len(c.tokens); c.at++ {
		if c.skip("granted", "by") {
			return append(roles, c.take(1)...)
		}
	}
	return roles
}

// find moves behind the next such keyword outside of parentheses. It stays
// where it is if there is none.
func (c *cursor) find(keyword string) bool {
	depth := 0
	for i := c.at; i < len(c.tokens); i++ {
		switch t := c.tokens[i]; {
		case t.text == "(":
			depth++
		case t.text == ")":
			depth--
		case depth == 0 && t.is(keyword):
			c.at = i + 1
			return true
		}
	}
	return false
}

// take passes over the next n tokens and returns them.
func (c *cursor) take(n int) []token {
	n = min(n, len(c.tokens)-c.at)
	c.at += n
	return c.tokens[c.at-n : c.at : c.at]
}

// list passes over names with commas between them, each perhaps after GROUP,
// and returns the names.
func (c *cursor) list() []token {
	var names []token
	for c.at < len(c.tokens) {
		if c.peek().is("group") && c.at+1 < len(c.tokens) && c.tokens[c.at+1].text != "," {
			c.at++
		}
		names = append(names, c.take(1)...)
		if c.peek().text != "," {
			return names
		}
		c.at++
	}
	return names
}
