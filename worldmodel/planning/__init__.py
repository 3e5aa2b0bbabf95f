"""Planning in dreams: values of actions by any world model, a search over them, an agent."""
