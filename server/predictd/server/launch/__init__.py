"""From the machine to the children: topology, budget, plan, environment, exec. Pure up to the last step."""
