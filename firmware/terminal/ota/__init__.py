# Updates of the application: control record, state table, installation, agent and the frozen loader.
